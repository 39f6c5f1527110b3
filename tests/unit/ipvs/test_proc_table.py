"""/proc/net/ip_vs as the kernel writes it, read next to the services that netlink reported."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.strategies import server_specs, service_specs

from kata_runtime.errors import ConflictError, ProtocolError
from kata_runtime.ipvs import proc_table
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HEADING = (
    "IP Virtual Server version 1.2.1 (size=4096)\n"
    "Prot LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
)
_FILE = (
    f"{_HEADING}"
    "TCP  0A000001:0050 rr  \n"
    "  -> 0AC81276:1F90      Masq    19     3          17        \n"
    "  -> 0AC80001:1F90      Local   0      0          0         \n"
    "UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 wlc persistent 90000 80000000\n"
    "  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0035      Tunnel  65535  0          0         \n"
    "UDP  0A000001:0035 sh ops persistent 90000 FFFFFF00\n"
    "FWM  00000011 sed \n"
    "  -> 0A010101:0000      Route   1      0          0         \n"
)
_FD00 = inet_pton(AF_INET6, "fd00::1")
_SPECS = [
    ServiceSpec(ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80), "rr", 0, 0, 0xFFFFFFFF),
    ServiceSpec(ServiceKey(AF_INET6, Protocol.UDP, _FD00, 53), "wlc", 1, 360, 128),
    ServiceSpec(ServiceKey(AF_INET, Protocol.UDP, bytes([10, 0, 0, 1]), 53), "sh", 5, 360, 0xFFFFFF00),
    ServiceSpec(ServiceKey(AF_INET, Protocol.NONE, b"", 0, 17), "sed", 0, 0, 0xFFFFFFFF),
]


def _server(address: str, port: int, forwarding: Forwarding, *numbers: int) -> Server:
    family = AF_INET6 if ":" in address else AF_INET
    weight, active, inactive = numbers
    key = ServerKey(family, inet_pton(family, address), port)
    return Server(ServerSpec(key, forwarding, weight), active, inactive, 0, Statistics())


def _read(text: str, specs: Sequence[ServiceSpec], size: int = 1 << 20) -> list[Service]:
    data = text.encode()
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return [
        Service(spec, Statistics(), found) for spec, found in proc_table.servers(specs, pieces, lambda server: server)
    ]


def test_the_kernels_file() -> None:
    """Every kind of service and server, with everything that the file contains of it."""
    expected = [
        [
            _server("10.200.18.118", 8080, Forwarding.MASQUERADE, 19, 3, 17),
            _server("10.200.0.1", 8080, Forwarding.LOCAL, 0, 0, 0),
        ],
        [_server("fd00::2", 53, Forwarding.TUNNEL, 65535, 0, 0)],
        [],
        [_server("10.1.1.1", 0, Forwarding.ROUTE, 1, 0, 0)],
    ]
    services = [Service(spec, Statistics(), servers) for spec, servers in zip(_SPECS, expected, strict=True)]
    for size in (1, 7, 4096, 1 << 20):
        assert _read(_FILE, _SPECS, size) == services
    assert proc_table.count([_FILE[:100].encode(), _FILE[100:].encode()]) == 8
    assert _read(_HEADING, []) == []
    assert proc_table.count([_HEADING.encode()]) == 0


_FORWARDING = {Forwarding.MASQUERADE: "Masq", Forwarding.TUNNEL: "Tunnel", Forwarding.ROUTE: "Route"}


def _end(family: int, address: bytes, port: int) -> str:
    if family == AF_INET:
        return f"{int.from_bytes(address, 'big'):08X}:{port:04X}"
    groups = [address[at : at + 2].hex() for at in range(0, 16, 2)]
    return f"[{':'.join(groups)}]:{port:04X}"


def _written(spec: ServiceSpec, servers: Sequence[ServerSpec]) -> str:
    key = spec.key
    head = f"{key.protocol.name}  {_end(key.family, key.address, key.port)}" if not key.mark else f"FWM  {key.mark:08X}"
    lines = [f"{head} {spec.scheduler} \n"]
    for server in servers:
        end = _end(*server.key)
        lines.append(f"  -> {end}      {_FORWARDING[server.forwarding]:<7} {server.weight:<6} {1:<10} {2:<10}\n")
    return "".join(lines)


@st.composite
def _tables(draw: st.DrawFn) -> list[tuple[ServiceSpec, list[ServerSpec]]]:
    specs = draw(st.lists(service_specs(), max_size=4))
    return [(spec, draw(st.lists(server_specs(spec.key), max_size=3))) for spec in specs]


@given(_tables(), st.integers(1, 300))
def test_any_file_in_any_pieces(table: list[tuple[ServiceSpec, list[ServerSpec]]], size: int) -> None:
    """A file of any services and servers is decoded to the same, wherever its pieces are cut."""
    text = _HEADING + "".join(_written(spec, servers) for spec, servers in table)
    found = _read(text, [spec for spec, _ in table], size)
    assert [
        (service.spec, [(s.spec.key, s.spec.forwarding, s.spec.weight, s.active, s.inactive) for s in service.servers])
        for service in found
    ] == [(spec, [(s.key, s.forwarding, s.weight, 1, 2) for s in servers]) for spec, servers in table]


@pytest.mark.parametrize(
    "specs",
    [
        _SPECS[1:],
        _SPECS[:-1],
        [*_SPECS, _SPECS[0]],
        [_SPECS[1], _SPECS[0], *_SPECS[2:]],
        [_SPECS[0]._replace(scheduler="wrr"), *_SPECS[1:]],
        [],
    ],
)
def test_another_table(specs: list[ServiceSpec]) -> None:
    """A file with other services than netlink reported is recognised."""
    with pytest.raises(ConflictError) as refusal:
        _read(_FILE, specs)
    assert str(refusal.value) == "the virtual servers changed while they were read; try again"


_WRONG = "a server {!a} in the guest's list of virtual servers"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_HEADING[:-1], "the guest's list of virtual servers is cut short"),
        ("", "the guest's list of virtual servers is cut short"),
        (_HEADING[:60], "the guest's list of virtual servers is cut short"),
        (_FILE + "x" * 5000, "a line of 5000 characters in the guest's list of virtual servers"),
        (_HEADING + "  -> junk\n", _WRONG.format("  -> junk")),
        (_HEADING + "  -> 0A:0050 Masq 1 0 0\n", _WRONG.format("  -> 0A:0050 Masq 1 0 0")),
        (_HEADING + "  -> 0A000001:0050 Mask 1 0 0\n", _WRONG.format("  -> 0A000001:0050 Mask 1 0 0")),
        (_HEADING + "  -> [fd00]:0050 Masq 1 0 0\n", _WRONG.format("  -> [fd00]:0050 Masq 1 0 0")),
        (
            _HEADING + "  -> 0A000001:0050 Masq 1 0 0\n",
            "servers without a service in the guest's list of virtual servers",
        ),
        (_HEADING + "\x1b[2J\n", "a line '\\x1b[2J' in the guest's list of virtual servers"),
    ],
)
def test_broken_files(text: str, reason: str) -> None:
    """What breaks the format, or could steer a terminal, is refused."""
    with pytest.raises(ProtocolError) as refusal:
        _read(text, [])
    assert str(refusal.value) == reason


def test_count_needs_the_heading() -> None:
    """A file without its heading is no count of nothing."""
    with pytest.raises(ProtocolError) as refusal:
        proc_table.count([b"x\n"])
    assert str(refusal.value) == "the guest's list of virtual servers lacks its heading"


def test_endless_line_in_pieces() -> None:
    """A line that never ends is given up long before it fills the memory."""
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield _HEADING.encode()
        while taken < 1000:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(ProtocolError) as refusal:
        list(proc_table.servers([], pieces(), repr))
    assert (str(refusal.value), taken) == (
        "a line of 5000 characters in the guest's list of virtual servers",
        5,
    )


@given(st.binary(max_size=120), st.integers(0, len(_FILE)), st.booleans())
def test_hostile_files(junk: bytes, place: int, is_whole: bool) -> None:
    """Any file is refused as broken or of another table, or gives the requested services."""
    real = _FILE.encode()
    data = real[:place] + junk + (real[place:] if is_whole else b"")
    try:
        found = list(proc_table.servers(_SPECS, [data], repr))
    except (ConflictError, ProtocolError):
        return
    assert [spec for spec, _ in found] == _SPECS
