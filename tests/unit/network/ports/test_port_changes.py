"""Which port del-port deletes, by the many names that a port has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.typed_addresses import mac

from kata_runtime.errors import ConflictError, InputError, OnlyPlannedError
from kata_runtime.network.ports.port_changes import delete_port
from kata_runtime.sandbox.record import EndpointKind, NicRecord, PortRecord, Record, Work, WorkKind


def _nic(name: str, slot: int, device: str, port: PortRecord) -> NicRecord:
    return NicRecord(name, device, mac("02:00:00:00:00:01"), 1500, (), slot, kind=EndpointKind.OVS, port=port)


_WEB = _nic("eth0", 0, "kt0000000000", PortRecord("eth1", "br-int", given=""))
_DB = _nic("eth1", 1, "kt1111111111", PortRecord("uuid", "br-int", given="db"))


def _session(*nics: NicRecord, pending: tuple[Work, ...] = (), recovered: tuple[Work, ...] = ()) -> Any:
    record = Record("web", nics=nics, pending=pending)
    return SimpleNamespace(container_id="web", dry_run=True, record=record, recovered=recovered)


@pytest.mark.parametrize(
    ("text", "name"), [("eth0", "eth0"), ("kt0000000000", "eth0"), ("uuid", "eth1"), ("db", "eth1")]
)
def test_each_name_of_a_port(text: str, name: str) -> None:
    """The NIC's name, its device, the port's ID and the name that the user gave mean the port."""
    with pytest.raises(OnlyPlannedError) as planned:
        delete_port(_session(_WEB, _DB), text)
    assert planned.value.steps[0] == f"qemu: device_del of NIC {name}, mac 02:00:00:00:00:01"


def test_an_ambiguous_name_deletes_nothing() -> None:
    """An iface-id that is the name of another port's NIC is refused with the devices, whether that is added or not."""
    adding = Work(WorkKind.ADD_NIC, _DB)
    for session in (_session(_WEB, _DB), _session(_WEB, pending=(adding,))):
        with pytest.raises(ConflictError) as refused:
            delete_port(session, "eth1")
        assert str(refused.value) == (
            "port 'eth1' is that of NIC 'eth0' on device 'kt0000000000' and of NIC 'eth1' on device 'kt1111111111'; "
            "name it by its device"
        )
        with pytest.raises(OnlyPlannedError):
            delete_port(session, "kt1111111111")


def test_a_port_that_recovery_has_removed() -> None:
    """What the recovery before the command has removed counts as deleted by it, by each name; others do not."""
    recovered = (Work(WorkKind.ROUTES), Work(WorkKind.DELETE_NIC, _DB, "eth1"))
    for text in ("uuid", "db", "eth1", "kt1111111111"):
        delete_port(_session(recovered=recovered), text)
    with pytest.raises(InputError):
        delete_port(_session(recovered=recovered), "eth0")
