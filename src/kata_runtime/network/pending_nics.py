"""Unplugging of NICs whose addition or deletion was interrupted.

The guest must release the device. Until it does, the NIC stays pending, and its name, MAC address, device and root
port stay in use; from then on only commands about NICs check whether it is gone, and only its deletion waits for it.
"""

from __future__ import annotations

from kata_runtime.errors import DeadlineError
from kata_runtime.sandbox.pending import begun, ended
from kata_runtime.sandbox.record import Work, WorkKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_runtime.sandbox.record import NicRecord, Record
    from kata_runtime.sandbox.session import Session

# How long a command about something else waits for the guest to release a NIC: the first time, and once the guest has
# failed to release it before.
_OTHERS_SECONDS = 3.0
_AGAIN_SECONDS = 0.2


def deletion(record: Record, name: str) -> Work:
    """The record's entry for the deletion of NIC ``name``: the pending one, or a new one."""
    for work in record.pending:
        if (work.kind, work.name) == (WorkKind.DELETE_NIC, name):
            return work
    return Work(WorkKind.DELETE_NIC, name=name)


def begun_nics(record: Record) -> Iterator[tuple[Work, NicRecord]]:
    """The NICs of interrupted additions, which ``record.nics`` lacks, each with its work."""
    for work in record.pending:
        if work.nic is not None:
            yield work, work.nic


def leaving_names(record: Record) -> set[str]:
    """The names of NICs in ``record.nics`` whose deletion was interrupted."""
    return {work.name for work in record.pending if work.kind is WorkKind.DELETE_NIC}


def recover(session: Session, work: Work, *, own: bool = True) -> None:
    """Unplug the NIC, or leave it pending when the guest does not release it; ``own``: for a command about NICs.

    :raise QemuError, DeadlineError: QEMU failed.
    """
    from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

    if work.refused and not own:
        return
    seconds = _AGAIN_SECONDS if work.refused else UNPLUG_SECONDS if own else _OTHERS_SECONDS
    try:
        finish(session, work, seconds)
    except DeadlineError:
        if not work.refused:
            session.save(begun(ended(session.record, work), work._replace(refused=True)))


def finish(session: Session, work: Work, seconds: float | None = None) -> None:
    """Unplug the NIC within ``seconds``, by default within the usual deadline.

    :raise QemuError, DeadlineError: QEMU or the guest failed.
    """
    from kata_runtime.network.endpoint import endpoint_class
    from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

    seconds = UNPLUG_SECONDS if seconds is None else seconds
    if work.nic is not None:
        endpoint_class(work.nic.kind).recover(session, work.nic, seconds)
        _stop_dhcp(session, work.nic)
        session.save(ended(session.record, work))
        return
    nic = next((nic for nic in session.record.nics if nic.name == work.name), None)
    if nic is None:
        session.save(ended(session.record, work))
        return
    endpoint_class(nic.kind).unplug(session, nic, seconds)
    _stop_dhcp(session, nic)
    _forget(session, nic, work)


def _stop_dhcp(session: Session, nic: NicRecord) -> None:
    if nic.dhcp:
        from kata_runtime.network import dhcp_client

        dhcp_client.stop(session.channel(), nic.name)


def _forget(session: Session, nic: NicRecord, work: Work) -> None:
    record = ended(session.record, work)
    remaining = tuple(other for other in record.nics if other is not nic)
    mirrored = record.mirrored
    if nic.carried_from:
        from kata_runtime.network.namespace_facts import names_in

        # The guest's kernel has deleted the interface's addresses and routes with it.
        mirrored = tuple(fact for fact in mirrored if nic.name not in names_in(fact))
    session.save(record._replace(nics=remaining, mirrored=mirrored))
