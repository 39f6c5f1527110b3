"""A guest's virtual servers: its bytes are decoded, and printed in every format."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

from tests.fuzz.target import ScriptedKernel, Target, check_line, parts

from kata_runtime.conntrack.cleanup import Filter, delete_matching
from kata_runtime.ipvs import codec, proc_table, sockopt_services, sockopt_table
from kata_runtime.ipvs.attributes import NOT_COUNTED
from kata_runtime.ipvs.connections import parse_connections
from kata_runtime.ipvs.engine import Engine
from kata_runtime.ipvs.model import (
    ListConnections,
    ListDaemons,
    ListTable,
    ListTimeouts,
    Save,
    View,
)
from kata_runtime.ipvs.queries import answer
from kata_runtime.ipvs.sockopt_table import ServerDetails

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.ipvs.model import Question, Server

_BOTH = (False, True)
_QUESTIONS: list[Question] = [
    *(
        ListTable(None, view, exact, is_sorted)
        for view, exact, is_sorted in product(View, (False, True), (False, True))
    ),
    ListConnections(True),
    ListConnections(False),
    ListTimeouts(),
    ListDaemons(),
    Save(),
]
_FORMATS = ("text", "json")
_FAMILY = 27
_SERVICES = 2


def _service(data: bytes) -> None:
    spec, _ = codec.unpack_service(data)
    again, _ = codec.unpack_service(codec.service_payload(codec.NEW_SERVICE, codec.pack_service(spec)))
    assert again == spec
    check_line(spec.key.description + spec.scheduler + spec.engine)


def _server(data: bytes) -> None:
    """The quick way and the slow one agree; the first byte is the family of the service."""
    server = codec.unpack_server(data[1:], data[0] if data else 0)
    check_line(server.spec.key.text)
    assert codec.unpack_server(data[1:], data[0], statistics=False) == server._replace(statistics=NOT_COUNTED)


def _others(data: bytes) -> None:
    others: list[Callable[[bytes], object]] = [codec.unpack_timeouts, codec.unpack_info, codec.unpack_daemon]
    others[data[0] % len(others) if data else 0](data[1:])


def _report(data: bytes) -> None:
    """A whole answer to the user: the first part chooses the question, the others are the guest's answers."""
    how, *answers = list(parts(data)) or [b""]
    number = int.from_bytes(how, "big")
    question, fmt = _QUESTIONS[number % len(_QUESTIONS)], _FORMATS[number // len(_QUESTIONS) % len(_FORMATS)]
    text = b"".join(answer(Engine(ScriptedKernel(answers), _FAMILY), question, fmt, "lb")).decode()
    check_line(text)
    if fmt == "json":
        json.loads(text)


def _name(server: Server) -> str:
    return server.spec.key.text


def _proc_table(data: bytes) -> None:
    """A file of servers; the first part is the services that netlink reports."""
    services, *pieces = list(parts(data)) or [b""]
    specs = [codec.unpack_service(payload)[0] for payload in parts(services)]
    proc_table.count(pieces)
    for _, servers in proc_table.servers(specs, pieces, _name):
        check_line(" ".join(servers))


def _entries(data: bytes) -> None:
    """Socket options: the first part selects the details, the others are the lists of services and of servers."""
    how, *answers = list(parts(data)) or [b""]
    details = ServerDetails(statistics=b"s" in how, tunnels=b"t" in how)
    kernel = ScriptedKernel(answers)
    counted = [(entry.identity, entry.servers) for entry in sockopt_services.listed(kernel, _SERVICES)]
    for servers in sockopt_table.servers(kernel, counted, details, _name):
        check_line(" ".join(servers or ()))


def _all_services(data: bytes) -> None:
    """What decides that a socket option lists all services: the first part says with or without counters."""
    how, *answers = list(parts(data)) or [b""]
    for entry in sockopt_services.all_services(ScriptedKernel(answers), statistics=b"s" in how) or ():
        spec, _ = entry.head(statistics=True)
        check_line(spec.key.description + spec.scheduler)


def _connections(data: bytes) -> None:
    for entry in parse_connections([data[:100], data[100:]]):
        check_line(" ".join(map(str, entry)))


def _conntrack(data: bytes) -> None:
    """Cleanup on a guest with these entries: the first part is the filter, two answers are the dumps."""
    how, *answers = list(parts(data)) or [b""]
    destination = how[1:17] if len(how) > 16 else how[1:5] if len(how) > 4 else b""
    protocol = how[0] if how else 0
    # A filter of neither is refused before anything is asked.
    delete_matching(ScriptedKernel(answers), Filter(destination, protocol if protocol or destination else 6))


IPVS_TARGETS = [
    Target("ipvs_service", _service),
    Target("ipvs_server", _server),
    Target("ipvs_others", _others),
    Target("ipvs_report", _report),
    Target("proc_table", _proc_table),
    Target("all_services", _all_services),
    Target("entries", _entries),
    Target("connections", _connections),
    Target("conntrack", _conntrack),
]
