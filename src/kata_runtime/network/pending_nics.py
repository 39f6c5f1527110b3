"""NICs of interrupted commands, which are to be taken out: of an addition half-way, of a deletion the rest.

That needs the guest's consent. A NIC that the guest does not let go of stays pending, with its name, MAC address,
device and root port; from then on only commands about NICs look whether it is gone, and only its deletion waits for it.
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

# How long a command waits for the guest's release of a NIC that it has nothing to do with: the first time, and when
# the guest has not let go before.
_OTHERS_SECONDS = 3.0
_AGAIN_SECONDS = 0.2


def deletion(record: Record, name: str) -> Work:
    """The work of deleting NIC ``name``: the pending one, if it was begun before."""
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
    """Take the NIC out, or leave it pending when the guest does not let go; ``own``: for a command about NICs.

    :raise QemuError, DeadlineError: QEMU does not do its part.
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
    """Take the NIC out within ``seconds``, or as long as any guest has for it.

    :raise QemuError, DeadlineError: QEMU or the guest does not do its part.
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

        # The guest's kernel forgot with the interface what it knew of it.
        mirrored = tuple(fact for fact in mirrored if nic.name not in names_in(fact))
    session.save(record._replace(nics=remaining, mirrored=mirrored))
