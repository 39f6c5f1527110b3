"""What is kept of the previous table while a batch is under way, and how many rules there may be."""

from __future__ import annotations

import json
from _socket import AF_INET
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.strategies import server_specs, service_keys, service_specs

from kata_runtime.errors import HostError, LimitError
from kata_runtime.ipvs import rule_limit
from kata_runtime.ipvs.batch_journal import Snapshot, packed, unpacked
from kata_runtime.ipvs.model import (
    Forwarding,
    Protocol,
    ServerKey,
    ServerSpec,
    ServiceKey,
    ServiceSpec,
    Tunnel,
    TunnelType,
)
from kata_runtime.sandbox.record import WorkKind
from kata_runtime.sandbox.undo_file import UndoFile

if TYPE_CHECKING:
    from pathlib import Path


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    specs = draw(st.lists(service_specs(), max_size=3, unique_by=lambda spec: spec.key))
    table = {}
    for spec in specs:
        servers = draw(st.lists(server_specs(spec.key), max_size=3))
        table[spec.key] = (spec, {server.key: server for server in servers})
    return Snapshot(frozenset(draw(st.sets(service_keys(), max_size=3))) | table.keys(), table)


@given(_snapshots())
def test_round_trip(previous: Snapshot) -> None:
    """Services that existed, with thresholds and tunnels of their servers, and those that did not, are read again."""
    assert unpacked(json.loads(json.dumps(packed(previous)))) == previous


def test_what_no_rule_can_say() -> None:
    """What programs in the container made over netlink, beyond the grammar of rules, is kept exactly, too."""
    key = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 0)
    tunnel = Tunnel(TunnelType.GUE, 1, 3)
    servers = [
        ServerSpec(ServerKey(AF_INET, bytes([127, 0, 0, 1]), 8080), Forwarding.LOCAL, 70_000, 1, 2),
        ServerSpec(ServerKey(AF_INET, bytes([10, 0, 0, 2]), 8080), Forwarding.TUNNEL, 1, 0, 0, tunnel),
    ]
    spec = ServiceSpec(key, "an \u00e9 -p 5", 5, 0, 0xFFFFFF00)
    previous = Snapshot(frozenset({key}), {key: (spec, {server.key: server for server in servers})})
    assert unpacked(json.loads(json.dumps(packed(previous)))) == previous


@pytest.fixture
def undo_file(tmp_path: Path) -> UndoFile:
    """That of a batch, in a sandbox of which there is nothing else."""
    session: Any = SimpleNamespace(directory=tmp_path)
    return UndoFile(session, WorkKind.IPVS)


def test_damage(undo_file: UndoFile, tmp_path: Path) -> None:
    """A file that is damaged or missing is reported."""
    path = tmp_path / "ipvs-undo.json"
    for text, reason in {
        "[[1]]": "not enough values to unpack (expected 3, got 1)",
        '[[[2,6,"0a000001",80,0]': "Expecting ',' delimiter: line 1 column 24 (char 23)",
        '[[[2,99,"0a000001",80,0],null,null]]': "99 is not a valid Protocol",
        "7": "'int' object is not iterable",
    }.items():
        path.write_text(text)
        with pytest.raises(HostError) as refusal:
            undo_file.read(unpacked)
        assert str(refusal.value) == f"{path} is damaged: {reason}; delete --force the container"
    path.unlink()
    with pytest.raises(HostError) as refusal:
        undo_file.read(unpacked)
    assert str(refusal.value) == f"cannot read {path}: No such file or directory"


def test_refused_by_the_file_system(undo_file: UndoFile, tmp_path: Path) -> None:
    """What cannot be written is reported, and the file that was there before stays as it was."""
    previous = Snapshot(frozenset({ServiceKey(AF_INET, Protocol.NONE, b"", 0, 1)}), {})
    undo_file.replace(packed(previous))
    assert [entry.name for entry in tmp_path.iterdir()] == ["ipvs-undo.json"]
    (tmp_path / "ipvs-undo.json.new").mkdir()
    with pytest.raises(HostError) as refusal:
        undo_file.replace([])
    assert str(refusal.value) == f"cannot write {tmp_path / 'ipvs-undo.json'}: Is a directory"
    assert undo_file.read(unpacked) == previous


class _Engine:
    def __init__(self, rules: int) -> None:
        self.rules = rules
        self.counts = 0

    def count(self, _heads: None) -> int:
        """Note that the table was read."""
        self.counts += 1
        return self.rules


@pytest.mark.parametrize(
    ("actual", "more", "counts"),
    [(99, 1, 1), (0, 100, 1), (150, -1, 0), (150, 0, 0)],  # 150: the container's own ipvsadm made them
)
def test_admitted(actual: int, more: int, counts: int) -> None:
    """The table is counted before each addition; what adds nothing passes in any case."""
    engine: Any = _Engine(actual)
    rule_limit.admit(engine, more, 100)
    assert engine.counts == counts


def test_refused() -> None:
    """One more than possible is refused with both numbers."""
    engine: Any = _Engine(98)
    with pytest.raises(LimitError) as refusal:
        rule_limit.admit(engine, 3, 100)
    assert str(refusal.value) == (
        "the container has 98 of 100 possible rules, and would have 101; services and servers both count; "
        "ipvs_rule_limit in the configuration raises the limit"
    )
    assert refusal.value.limit == 100
