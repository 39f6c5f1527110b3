"""Pending work: which part ends it, and which commands need it ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.typed_addresses import mac

from kata_runtime.errors import GuestError
from kata_runtime.recovery import recover, recover_for
from kata_runtime.sandbox.pending import begun, ended
from kata_runtime.sandbox.record import NicRecord, Record, Work, WorkKind

_NIC = NicRecord("eth0", "tap0", mac("02:00:00:00:00:01"), 1500, (), 0)
_WORK = {
    WorkKind.ADD_NIC: Work(WorkKind.ADD_NIC, _NIC),
    WorkKind.DELETE_NIC: Work(WorkKind.DELETE_NIC, name="eth0"),
    WorkKind.MIRROR: Work(WorkKind.MIRROR, facts=("mtu eth0 1500",)),
    WorkKind.ROUTES: Work(WorkKind.ROUTES),
    WorkKind.IPVS: Work(WorkKind.IPVS),
}
_RECOVERERS = {
    WorkKind.ADD_NIC: "kata_runtime.network.pending_nics",
    WorkKind.DELETE_NIC: "kata_runtime.network.pending_nics",
    WorkKind.MIRROR: "kata_runtime.network.reconcile",
    WorkKind.ROUTES: "kata_runtime.network.route_journal",
    WorkKind.IPVS: "kata_runtime.ipvs.commands",
}


def _session(*pending: Work) -> Any:
    return SimpleNamespace(record=Record("web", pending=pending), recovered=[])


def _recoverer(session: Any, work: Work, *, succeeds: bool = True, leaves: Work | None = None) -> Any:
    """A recoverer of ``work``; ``leaves`` is what it leaves pending in its place."""

    def recoverer(_session: object, _work: object = None, **_: object) -> None:
        if not succeeds:
            raise GuestError("the guest is silent")
        session.record = ended(session.record, work)
        if leaves is not None:
            session.record = begun(session.record, leaves)

    return recoverer


@pytest.mark.parametrize("kind", list(WorkKind))
def test_recoverer_of_each_kind(kind: WorkKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of work is ended by the part that began it, and the command can see that it was."""
    work = _WORK[kind]
    session = _session(work)
    monkeypatch.setattr(f"{_RECOVERERS[kind]}.recover", _recoverer(session, work))
    recover(session)
    assert (session.record.pending, session.recovered) == ((), [work])


def test_recovered_deletion_names_the_nic(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interrupted deletion was finished, the command can see all of the NIC that is gone."""
    work = _WORK[WorkKind.DELETE_NIC]
    session = _session(work)
    session.record = session.record._replace(nics=(_NIC._replace(name="eth1"), _NIC))
    monkeypatch.setattr(f"{_RECOVERERS[work.kind]}.recover", _recoverer(session, work))
    recover(session)
    assert session.recovered == [work._replace(nic=_NIC)]


def test_nothing_to_recover() -> None:
    """A sandbox without pending work is left alone."""
    session = _session()
    recover(session)
    assert session == _session()


def test_refused_work_is_not_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NIC that the guest did not release stays pending, and no command treats it as removed."""
    work = _WORK[WorkKind.DELETE_NIC]
    refused = work._replace(refused=True)
    session = _session(work)
    monkeypatch.setattr("kata_runtime.network.pending_nics.recover", _recoverer(session, work, leaves=refused))
    recover(session)
    assert (session.record.pending, session.recovered) == ((refused,), [])


@pytest.mark.parametrize(
    ("subject", "changes", "outcome"),
    [
        ("routes", True, "raised"),
        ("routes", False, "told"),
        ("ipvs", True, "told"),
        ("ipvs", False, "left alone"),
        ("interface", True, "told"),
    ],
)
def test_who_needs_it_ended(subject: str, changes: bool, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on routes that cannot be ended fails a change of routes, is told to others that try, and stays."""
    work = _WORK[WorkKind.ROUTES]
    session = _session(work)
    notes: list[str] = []
    monkeypatch.setattr("kata_runtime.network.route_journal.recover", _recoverer(session, work, succeeds=False))
    try:
        recover_for(session, subject, notes.append, changes=changes)
        seen = "told" if notes else "left alone"
    except GuestError:
        seen = "raised"
    assert seen == outcome
    assert notes == ["unfinished work on routes stays as it is: the guest is silent"] * (outcome == "told")
    assert (session.record.pending, session.recovered) == ((work,), [])


def test_reading_waits_for_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of NICs does not try to take one out."""
    work = _WORK[WorkKind.DELETE_NIC]
    session = _session(work)
    monkeypatch.setattr("kata_runtime.network.pending_nics.recover", _recoverer(session, work))
    notes: list[str] = []
    recover_for(session, "interface", notes.append, changes=False)
    assert (session.record.pending, session.recovered, notes) == ((work,), [], [])
