"""kata-ipvs top: the whole table of fixed data, its orders, and the part that a terminal has room for."""

from __future__ import annotations

from _socket import AF_INET

from kata_runtime.cli.argument_parser import Call, parse
from kata_runtime.cli.ipvs_top import ORDERS, TopScreen, ordered
from kata_runtime.cli.rich_output import rendered
from kata_runtime.ipvs.model import (
    Forwarding,
    Protocol,
    Server,
    ServerKey,
    ServerSpec,
    Service,
    ServiceKey,
    ServiceSpec,
    Statistics,
)


def _server(last: int, weight: int, active: int, rate: int) -> Server:
    spec = ServerSpec(ServerKey(AF_INET, bytes([10, 0, 1, last]), 8080), Forwarding.MASQUERADE, weight)
    statistics = Statistics(connection_rate=rate, in_byte_rate=rate * 1000, out_byte_rate=rate * 2000)
    return Server(spec, active, 2 * active, 0, statistics)


def _service(last: int, flags: int, *servers: Server) -> Service:
    key = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, last]), 80)
    rate = sum(server.statistics.connection_rate for server in servers)
    return Service(ServiceSpec(key, "wrr", flags, 300, 0xFFFFFFFF), Statistics(connection_rate=rate), servers)


_SERVICES = [
    _service(2, 1, _server(3, 1, 0, 7), _server(1, 5, 40, 1)),
    _service(1, 0, _server(2, 0, 3, 0)),
]


def _screen() -> TopScreen:
    call = parse(["kata-ipvs", "top", "web"])
    assert isinstance(call, Call)
    screen = TopScreen(call, ORDERS[0])
    screen._services = _SERVICES
    screen._looked = "12:00:00"
    return screen


def test_table() -> None:
    """Services and servers are listed with connections, rates and weights, by address."""
    assert rendered(_screen().whole()) == (
        "virtual servers of web · 12:00:00 · 2 services, 3 servers · 43 active · 8 connections/s\n"
        "\n"
        "SERVICE / SERVER    HOW          WEIGHT   ACTIVE   INACTIVE   CONN/S     IN/S     OUT/S\n"
        "───────────────────────────────────────────────────────────────────────────────────────\n"
        "TCP  10.0.0.1:80    wrr                        3          6        0      0 B       0 B\n"
        "  → 10.0.1.2:8080   Masq              0        3          6        0      0 B       0 B\n"
        "TCP  10.0.0.2:80    wrr -p 300                40         80        8      0 B       0 B\n"
        "  → 10.0.1.1:8080   Masq              5       40         80        1   1.0 kB    2.0 kB\n"
        "  → 10.0.1.3:8080   Masq              1        0          0        7   7.0 kB   14.0 kB\n"
    )


def _shown(name: str, *, reverse: bool = False) -> list[str]:
    order = next(order for order in ORDERS if order.name == name)
    return [row.spec.key.text.split()[-1].partition(":")[0] for row in ordered(_SERVICES, order, reverse=reverse)]


def test_orders() -> None:
    """Each order sorts services, and within them servers; reversed from the smallest."""
    by_two = ["10.0.0.2", "10.0.1.1", "10.0.1.3", "10.0.0.1", "10.0.1.2"]
    by_rate = ["10.0.0.2", "10.0.1.3", "10.0.1.1", "10.0.0.1", "10.0.1.2"]
    assert {order.name: _shown(order.name) for order in ORDERS} == {
        "address": ["10.0.0.1", "10.0.1.2", "10.0.0.2", "10.0.1.1", "10.0.1.3"],
        "active": by_two,
        "inactive": by_two,
        "connections/s": by_rate,
        "bytes/s": by_rate,
        "weight": by_two,
    }
    assert _shown("active", reverse=True) == ["10.0.0.1", "10.0.1.2", "10.0.0.2", "10.0.1.3", "10.0.1.1"]


def test_keys_scroll_and_order() -> None:
    """Keys choose the order and the part that is shown; what was chosen is in the last line, the place in the first."""
    screen = _screen()
    for key in ("c", "down", "down", "x"):
        screen.press(key)
    lines = rendered(screen.draw(200, 7)).splitlines()
    assert lines == [
        "web · 12:00:00 · 2 services, 3 servers · 43 active · 8 conn/s · rows 3-4 of 5",
        "",
        "SERVICE / SERVER    HOW    WEIGHT   ACTIVE   INACTIVE   CONN/S     IN/S    OUT/S",
        "────────────────────────────────────────────────────────────────────────────────",
        "  → 10.0.1.1:8080   Masq        5       40         80        1   1.0 kB   2.0 kB",
        "TCP  10.0.0.1:80    wrr                  3          6        0      0 B      0 B",
        " q quit  r reverse  ↑↓ scroll  order by n address a active i inactive c conn/s b bytes/s w weight",
    ]
    narrow = rendered(screen.draw(80, 7)).splitlines()
    assert [len(line) for line in narrow] == [77, 0, 80, 80, 80, 80, 77]
    assert narrow[-1] == " q quit  r reverse  n address a active i inactive c conn/s b bytes/s w weight"
    for _ in range(9):
        screen.press("page down")
    assert rendered(screen.draw(200, 7)).splitlines()[0].endswith(" · rows 4-5 of 5")
    screen.press("r")
    for _ in range(9):
        screen.press("page up")
    assert rendered(screen.draw(200, 7)).splitlines()[4].startswith("TCP  10.0.0.1:80")
