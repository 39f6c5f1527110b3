"""Everything that reads what a user wrote, and the runtime's own files, which may be damaged."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.fuzz.target import Target, check_line

from kata_runtime import fast_json
from kata_runtime.cli import argument_parser
from kata_runtime.cli.lifecycle_commands import signal_of
from kata_runtime.conntrack.cleanup import parse_filter
from kata_runtime.errors import ContainerError
from kata_runtime.ipvs import batch_journal, fast_rule_parser, saved_rules
from kata_runtime.ipvs.ipvsadm_grammar import parse
from kata_runtime.ipvs.model import AddServer, AddService, Forwarding, ServiceFlag
from kata_runtime.ipvs.rules import outcome, parse_rules
from kata_runtime.ipvs.rules_error import RulesError
from kata_runtime.network import requests, route_journal
from kata_runtime.network.clients.neutron import Port, Subnet
from kata_runtime.network.ports import neutron_ports
from kata_runtime.network.strict_json import read_json
from kata_runtime.sandbox.config import load_config
from kata_runtime.sandbox.identity import check_id, resolve
from kata_runtime.sandbox.record import VERSION, WorkKind, load_record
from kata_runtime.sandbox.undo_file import UndoFile

if TYPE_CHECKING:
    from collections.abc import Callable


def _argument(data: bytes) -> str:
    """Bytes as Python makes them a word of argv."""
    return data.decode("utf-8", "surrogateescape")


def _fast_json(data: bytes) -> None:
    """The same value as of the standard library's reader, or an error where that has one."""
    text = _argument(data)
    results = []
    for loads in (fast_json.loads, partial(json.loads, parse_constant=_refuse_constant)):
        try:
            results.append(repr(loads(text)))
        except (ValueError, RecursionError):
            results.append("an error")
    assert results[0] == results[1]
    with suppress(ValueError, RecursionError):
        value = fast_json.loads(text)
        # Infinity comes of numbers with many digits; neither writes it.
        assert fast_json.dumps(value) == json.dumps(value, separators=(",", ":"), allow_nan=False)


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _nic(data: bytes) -> None:
    nic = requests.read_nic_request(data)
    assert requests.read_nic_name(data) == nic.name


def _port(data: bytes) -> None:
    """What add-port reads of a user, and what it makes of what Neutron says of a port."""
    if data[:1] == b"{":
        assert requests.read_port_request(data).device == ""
        return
    mac, address, cidr, gateway, destination, hop, mtu = (*map(_argument, data.split(b"\0")), *[""] * 7)[:7]
    subnet = Subnet(cidr, gateway, ((destination, hop),), ())
    port = Port("id", "name", mac, len(mtu) * 100, "host", ((address, subnet),))
    assert str(neutron_ports._checked(port, "eth0")[0].mac) == mac.lower()


def _routes(data: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [
        requests.read_route_requests, requests.read_route_filters, requests.read_route_table,
    ]  # fmt: skip
    readers[data[0] % len(readers) if data else 0](data[1:])


def _ipvsadm(data: bytes) -> None:
    change = parse(_argument(data))
    if isinstance(change, AddService) and change.spec.flags & ServiceFlag.PERSISTENT:  # without, -S leaves -M out
        assert parse(saved_rules.add_service(change.spec)) == change
    if isinstance(change, AddServer) and not (change.spec.upper or change.spec.lower):  # which -S leaves out
        line = saved_rules.add_server(change.service, change.spec)
        assert parse(line, forwarding=Forwarding.ROUTE) == change, line


def _quick(data: bytes) -> None:
    """What the quick way reads, the grammar reads in the same way."""
    line = _argument(data)
    rule = fast_rule_parser.read(line)
    if rule is not None:
        assert parse(line, forwarding=Forwarding.ROUTE) == rule


def _rules(data: bytes) -> None:
    try:
        outcome({}, parse_rules(data, "rules"))
    except RulesError as error:
        for problem in error.problems:
            check_line(problem)
        raise


def _argv(data: bytes) -> None:
    asked = argument_parser.parse([_argument(word) for word in data.split(b"\0")])
    if isinstance(asked, argument_parser.Call) and asked.command.words == ("kill",) and len(asked.operands) > 1:
        signal_of(asked.operands[1])


def _container_id(data: bytes) -> None:
    text = _argument(data)
    for name in ("abc", "abx"):
        (_directory() / name).mkdir(exist_ok=True)
    with suppress(ContainerError):
        assert resolve(str(_directory()), text) in ("abc", "abx")
    assert "/" not in check_id(text)


@lru_cache(maxsize=1)
def _directory() -> Path:
    """One for all inputs: making one each time would take most of the time."""
    made = Path(tempfile.mkdtemp(prefix="kata-runtime-fuzz-"))
    atexit.register(shutil.rmtree, made)
    return made


def _configuration(data: bytes) -> None:
    path = _directory() / "configuration.toml"
    path.write_bytes(data)
    load_config(str(path), check_line)


def _record(data: bytes) -> None:
    """Record and undo files, which a crash of the host, or a hand, can have damaged."""
    session: Any = SimpleNamespace(directory=_directory())
    readers: list[tuple[str, Callable[[], object]]] = [
        ("record.json", lambda: load_record(str(_directory()))),
        ("ipvs-undo.json", lambda: UndoFile(session, WorkKind.IPVS).read(batch_journal.unpacked)),
        ("routes-undo.json", lambda: UndoFile(session, WorkKind.ROUTES).read(route_journal.unpacked)),
    ]
    number = data[0] % len(readers) if data else 0
    name, read = readers[number]
    # Of another version nothing is read.
    head = b'{"version":%d,' % VERSION if number == 0 else b""
    (_directory() / name).write_bytes(head + data[1:])
    read()


_TARGETS: list[tuple[str, Callable[[bytes], object]]] = [
    ("json", read_json),
    ("fast_json", _fast_json),
    ("nic", _nic),
    ("port", _port),
    ("routes", _routes),
    ("ipvsadm", _ipvsadm),
    ("quick", _quick),
    ("rules", _rules),
    ("cleanup", lambda data: parse_filter(_argument(data))),
    ("configuration", _configuration),
    ("container_id", _container_id),
    ("argv", _argv),
    ("record", _record),
]
USER_TARGETS = [Target(name, feed) for name, feed in _TARGETS]
