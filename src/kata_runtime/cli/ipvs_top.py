"""kata-ipvs top: a live table of virtual servers. Import it after ``optional_packages.require(RICH)``."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from kata_runtime.cli.live_screen import show
from kata_runtime.cli.rich_output import is_terminal, joined, plain, rendered
from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.streams import write_text
from kata_runtime.errors import DeadlineError
from kata_runtime.ipvs.commands import open_engine
from kata_runtime.ipvs.model import Forwarding, Service, ServiceFlag
from kata_runtime.ipvs.sockopt_table import ServerDetails

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.ipvs.model import Server

_INTERVAL = 2.0  # seconds
_LOCK_SECONDS = 1.0
_FORWARDING = {
    Forwarding.MASQUERADE: "Masq",
    Forwarding.LOCAL: "Local",
    Forwarding.TUNNEL: "Tunnel",
    Forwarding.ROUTE: "Route",
    Forwarding.BYPASS: "Bypass",
}


class Order(NamedTuple):
    """The sort orders of the table: the key to press, and the name of the column."""

    key: str
    name: str
    of_server: Callable[[Server], float]


# By address is ipvsadm's order, ascending; all others are descending.
ORDERS = (
    Order("n", "address", lambda _server: 0),
    Order("a", "active", lambda server: server.active),
    Order("i", "inactive", lambda server: server.inactive),
    Order("c", "connections/s", lambda server: server.statistics.connection_rate),
    Order("b", "bytes/s", lambda server: server.statistics.in_byte_rate + server.statistics.out_byte_rate),
    Order("w", "weight", lambda server: server.spec.weight),
)


def run(call: Call) -> int:
    """Show the table until the user quits, or print it once, on request or without a terminal."""
    given = call.value("--interval")
    order = next(order for order in ORDERS if order.name == (call.value("--sort") or "address"))
    screen = TopScreen(call, order)
    if call.value("--once") is not None or not (is_terminal() and os.isatty(0)):
        screen.refresh()
        write_text(rendered(screen.whole()))
        return 0
    from kata_runtime.cli.interrupted import Interrupted

    try:
        show(screen, max(0.1, _INTERVAL if given is None else float(given)))
    except Interrupted as exc:
        if exc.number != signal.SIGINT:
            raise
    return 0


_QUIT = [(" q", "bold"), (" quit  ", "dim"), ("r", "bold"), (" reverse  ", "dim")]
_SCROLL = [("↑↓", "bold"), (" scroll  ", "dim"), ("order by ", "dim")]


class TopScreen:
    """The last snapshot of the table, its sort order, and the part that is shown."""

    def __init__(self, call: Call, order: Order) -> None:
        self._call = call
        self._order = order
        self._reverse = False
        self._first = 0
        self._page = 10
        self._services: Sequence[Service] = ()
        self._container = call.operands[0]
        self._looked = ""
        self._note = ""

    def refresh(self) -> None:
        """Read the table; while another command holds the container's lock, the last snapshot is kept.

        :raise KataError: the container, or its guest, does not answer.
        """
        seconds = float(self._call.settings.get("--lock-timeout", _LOCK_SECONDS))
        hurried = self._call._replace(
            settings={**self._call.settings, "--lock-timeout": str(min(seconds, _LOCK_SECONDS))}
        )
        try:
            with session_of(hurried, "ipvs", changes=False) as session:
                engine = open_engine(session)
                details = ServerDetails(statistics=True, tunnels=False)
                self._services = list(engine.services(engine.heads(), details))
                self._container = session.container_id
        except DeadlineError as error:
            if not self._looked:
                raise
            self._note = str(error)
        else:
            self._looked = time.strftime("%H:%M:%S")
            self._note = ""

    def press(self, key: str) -> None:
        """See ``live_screen.Screen``."""
        chosen = next((order for order in ORDERS if order.key == key), None)
        if chosen is not None:
            self._order, self._first = chosen, 0
        elif key in ("r", "R"):
            self._reverse = not self._reverse
        else:
            step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._page, "page down": self._page}.get(key, 0)
            self._first = max(0, self._first + step)

    def draw(self, width: int, height: int) -> RenderableType:
        """The part of the table that fits on a terminal of this size."""
        rows = ordered(self._services, self._order, reverse=self._reverse)
        # Other lines: two of title, two of headings, one of keys.
        self._page = max(1, height - 5)
        self._first = min(self._first, max(0, len(rows) - self._page))
        part = rows[self._first : self._first + self._page]
        filler = "\n" * (self._page - len(part))
        shown = f" · rows {self._first + 1}-{self._first + len(part)} of {len(rows)}" if len(part) < len(rows) else ""
        title = self._title("", "conn/s", shown)
        title.truncate(width, overflow="ellipsis")
        return Group(title, Text(""), _table(part), Text(filler, end=""), self._keys(width))

    def whole(self) -> RenderableType:
        """The whole table."""
        rows = ordered(self._services, self._order, reverse=self._reverse)
        return Group(self._title("virtual servers of ", "connections/s", ""), Text(""), _table(rows))

    def _title(self, before: str, unit: str, shown: str) -> Text:
        servers = [server for service in self._services for server in service.servers]
        rate = sum(service.statistics.connection_rate for service in self._services)
        parts = [
            (before, "dim"), (self._container[:40], "bold"), (f" · {self._looked}", "dim"),
            (f" · {_counted(len(self._services), 'service')}, {_counted(len(servers), 'server')}", ""),
            (f" · {sum(server.active for server in servers)} active", "green"), (f" · {rate} {unit}", ""),
            (shown, "dim"),
        ]  # fmt: skip
        if self._note:
            parts.append((f" · {self._note}", "yellow"))
        return joined(*parts)

    def _keys(self, width: int) -> RenderableType:
        """The keys in one line, in short on a narrow terminal."""
        text = joined(*_QUIT, *_SCROLL, *self._order_keys())
        if text.cell_len > width:
            text = joined(*_QUIT, *self._order_keys())
        text.truncate(width, overflow="ellipsis")
        return text

    def _order_keys(self) -> list[tuple[str, str]]:
        found = []
        for order in ORDERS:
            chosen = "bold reverse" if order is self._order else "dim"
            found += [(order.key, "bold"), (" ", ""), (order.name.replace("connections", "conn"), chosen), (" ", "")]
        return found


def _size(count: int) -> str:
    # "B", so that the table fits on 80 columns.
    return decimal(count).replace("bytes", "B").replace("byte", "B")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def ordered(services: Sequence[Service], order: Order, *, reverse: bool) -> list[Service | Server]:
    """Sort services, and the servers of each, in this order."""
    by_address = sorted(services, key=lambda service: service.spec.key)

    def size(service: Service) -> float:
        return sum(map(order.of_server, service.servers))

    # Sorting is stable: equal rows stay in the order of their addresses.
    sorted_services = sorted(by_address, key=size, reverse=order.key != "n") if order.key != "n" else by_address
    rows: list[Service | Server] = []
    for service in reversed(sorted_services) if reverse else sorted_services:
        rows.append(service)
        servers = sorted(service.servers, key=lambda server: server.spec.key)
        if order.key != "n":
            servers.sort(key=order.of_server, reverse=True)
        rows += reversed(servers) if reverse else servers
    return rows


def _table(rows: Sequence[Service | Server]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("SERVICE / SERVER", overflow="ellipsis", no_wrap=True)
    table.add_column("HOW", no_wrap=True)
    for heading in ("WEIGHT", "ACTIVE", "INACTIVE", "CONN/S", "IN/S", "OUT/S"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Service | Server) -> list[Text]:
    statistics = row.statistics
    speeds = [str(statistics.connection_rate), _size(statistics.in_byte_rate), _size(statistics.out_byte_rate)]
    busy = "" if statistics.connection_rate or statistics.in_byte_rate or statistics.out_byte_rate else "dim"
    if isinstance(row, Service):
        active, inactive = (sum(getattr(server, name) for server in row.servers) for name in ("active", "inactive"))
        how = row.spec.scheduler + (f" -p {row.spec.timeout}" if row.spec.flags & ServiceFlag.PERSISTENT else "")
        cells = [plain(row.spec.key.text, "bold cyan"), plain(how), Text("")]
    else:
        active, inactive = row.active, row.inactive
        weight = Text(str(row.spec.weight), style="" if row.spec.weight else "yellow")
        cells = [plain(f"  → {row.spec.key.text}"), plain(_FORWARDING[row.spec.forwarding], "dim"), weight]
    counts = [
        Text(str(active), style="green" if active else "dim"),
        Text(str(inactive), style="" if inactive else "dim"),
    ]
    return [*cells, *counts, *(Text(speed, style=busy) for speed in speeds)]
