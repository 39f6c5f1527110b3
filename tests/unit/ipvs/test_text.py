"""ipvsadm's grammar and listings as text."""

from __future__ import annotations

from _socket import AF_INET
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.strategies import server_specs, service_specs

from kata_runtime.errors import InputError
from kata_runtime.ipvs import listing, saved_rules
from kata_runtime.ipvs.ipvsadm_grammar import parse
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    DeleteService,
    Forwarding,
    ListConnections,
    ListTable,
    Protocol,
    Server,
    ServerSpec,
    Service,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    SetTimeouts,
    Statistics,
    Timeouts,
    View,
)
from kata_runtime.ipvs.rules import Batch, Table, count, difference, outcome, parse_rules

_KEY = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80)


@pytest.mark.parametrize(
    "words",
    [
        "-A -t 10.0.0.1:80 -s rr -p 300",
        "-A -t10.0.0.1:80 -srr -p300",
        "-At 10.0.0.1:80 --scheduler=rr --persistent=300",
        "--add-service --tcp-service 10.0.0.1:80 --scheduler rr --persistent 300",
        "-s rr -p 300 -t 10.0.0.1:80 -A",
        "-A -t '10.0.0.1:80' -s \"rr\" -p 300",
    ],
)
def test_spellings(words: str) -> None:
    """Long, short, attached, clustered, quoted and in any order: the same service."""
    assert parse(words) == AddService(ServiceSpec(_KEY, "rr", ServiceFlag.PERSISTENT, 300, 0xFFFFFFFF))


def test_meanings() -> None:
    """Commands of other kinds, with their defaults."""
    assert parse("-A -t 10.0.0.1:80") == AddService(ServiceSpec(_KEY, "wlc", 0, 0, 0xFFFFFFFF))
    assert parse("-D -t 10.0.0.1:80") == DeleteService(_KEY)
    assert parse("--set 1 0 3") == SetTimeouts(Timeouts(1, 0, 3))
    assert parse("-Ln") == ListTable(None, View.CONNECTIONS, exact=False, is_sorted=True)
    assert parse("-L --rate --stats --exact --nosort") == ListTable(None, View.STATISTICS, exact=True, is_sorted=False)
    assert parse("-Lnc --persistent-conn") == ListConnections(with_engine=True)
    added = parse("-a -t 10.0.0.1:80 -r 10.0.0.2")
    assert isinstance(added, AddServer)
    assert (added.spec.forwarding, added.spec.key.port, added.spec.weight) == (Forwarding.MASQUERADE, 80, 1)


@given(st.text(max_size=60))
def test_any_words(text: str) -> None:
    """Any text is read, or refused as input."""
    with suppress(InputError):
        parse(text)


@st.composite
def _services(draw: st.DrawFn) -> list[Service]:
    specs = draw(st.lists(service_specs(), max_size=3, unique_by=lambda spec: spec.key))
    return [Service(spec, Statistics(), tuple(draw(_servers(spec.key)))) for spec in specs]


def _servers(key: ServiceKey) -> st.SearchStrategy[list[Server]]:
    made: st.SearchStrategy[ServerSpec] = server_specs(key)
    specs = st.lists(made, max_size=3, unique_by=lambda spec: spec.key)
    return specs.map(lambda found: [Server(spec, 0, 0, 0, Statistics()) for spec in found])


def _table(services: list[Service]) -> Table:
    return {
        service.spec.key: (service.spec, {server.spec.key: server.spec for server in service.servers})
        for service in services
    }


def _load(text: str) -> Table:
    return outcome({}, parse_rules(text.encode(), "rules"))


def _thresholds(spec: ServerSpec) -> str:
    """What ``add_server`` leaves out, as ipvsadm does."""
    return f" -x {spec.upper} -y {spec.lower}" if spec.upper or spec.lower else ""


@given(_services())
def test_saved_rules_load(services: list[Service]) -> None:
    """What is saved, with thresholds added, loads into the same table."""
    text = ""
    for service in services:
        text += f"{saved_rules.add_service(service.spec)}\n"
        for server in service.servers:
            text += saved_rules.add_server(service.spec.key, server.spec) + _thresholds(server.spec) + "\n"
    assert _load(text) == _table(services)


@given(_services(), _services())
def test_difference_leads_there(first: list[Service], second: list[Service]) -> None:
    """The rules between two tables make the one into the other, and none are needed between equals."""
    before, after = _table(first), _table(second)
    rules = difference(before, after)
    batch = Batch("rules", b"x\n" * len(rules), rules)
    assert outcome(before, batch) == after
    assert difference(after, after) == []


def test_count() -> None:
    """Services and servers both count."""
    assert count(_load("-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 -r 10.0.0.2:80\n-A -f 1\n")) == 3


@pytest.mark.parametrize(
    ("value", "shown", "exact"),
    [
        (0, "        0", "        0"),
        (99_999_999, " 99999999", " 99999999"),
        (100_000_000, "  100000K", " 100000000"),
        (99_999_999_999, "99999999K", " 99999999999"),
        (100_000_000_000, "  100000M", " 100000000000"),
        (10**14, "  100000G", " 100000000000000"),
        (10**17, "  100000T", " 100000000000000000"),
    ],
)
def test_large_numbers(value: int, shown: str, exact: str) -> None:
    """Counters are cut to K, M, G and T as ipvsadm does, or shown whole."""
    spec, counted = ServiceSpec(_KEY, "rr", 0, 0, 0xFFFFFFFF), Statistics(connections=value)
    lines = [listing.service(spec, counted, View.STATISTICS, exact=how) for how in (False, True)]
    rest = f"{0:>9}" * 4
    assert lines == [f"{'TCP  10.0.0.1:80':<33}{shown}{rest}\n", f"{'TCP  10.0.0.1:80':<33}{exact}{rest}\n"]
