"""NICs of interrupted commands, which are to be taken out: of an addition half-way, of a deletion the rest.

That needs the guest's consent. A NIC that the guest does not let go of stays pending, with its name, MAC address,
device and root port; from then on only commands about NICs look whether it is gone, and only its deletion waits for it.
"""

from __future__ import annotations

from kata_runtime.errors import DeadlineError, HostError
from kata_runtime.sandbox.pending import begun, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kata_runtime.sandbox.record import NicRecord, Record
    from kata_runtime.sandbox.session import Session

ADD = "interface.add"
DELETE = "interface.delete"
_REFUSED = "refused"
# How long a command waits for the guest's release of a NIC that it has nothing to do with: the first time, and when
# the guest has not let go before.
_OTHERS_SECONDS = 3.0
_AGAIN_SECONDS = 0.2


def addition(nic: NicRecord) -> Mapping[str, object]:
    """The work of adding a NIC."""
    from kata_runtime.sandbox.record import document_of

    return {"kind": ADD, "nic": document_of(nic)}


def deletion(record: Record, name: str) -> Mapping[str, object]:
    """The work of deleting NIC ``name``: the pending one, if it was begun before."""
    for work in record.pending:
        if (work.get("kind"), work.get("name")) == (DELETE, name):
            return work
    return {"kind": DELETE, "name": name}


def begun_nics(record: Record) -> Iterator[tuple[Mapping[str, object], NicRecord]]:
    """The NICs of interrupted additions, which ``record.nics`` lacks, each with its work."""
    from kata_runtime.sandbox.record import nic_of

    for work in record.pending:
        if work.get("kind") == ADD:
            yield work, nic_of(work["nic"])


def leaving_names(record: Record) -> set[object]:
    """The names of NICs in ``record.nics`` whose deletion was interrupted."""
    return {work.get("name") for work in record.pending if work.get("kind") == DELETE}


def recover(session: Session, work: Mapping[str, object], *, own: bool = True) -> None:
    """Take the NIC out, or leave it pending when the guest does not let go; ``own``: for a command about NICs.

    :raise HostError: the work is none of this module's.
    :raise QemuError, DeadlineError: QEMU does not do its part.
    """
    from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

    refused = bool(work.get(_REFUSED))
    if refused and not own:
        return
    seconds = _AGAIN_SECONDS if refused else UNPLUG_SECONDS if own else _OTHERS_SECONDS
    try:
        finish(session, work, seconds)
    except DeadlineError:
        if not refused:
            session.save(begun(ended(session.record, work), {**work, _REFUSED: True}))


def finish(session: Session, work: Mapping[str, object], seconds: float | None = None) -> None:
    """Take the NIC out within ``seconds``, or as long as any guest has for it.

    :raise HostError: the work is none of this module's.
    :raise QemuError, DeadlineError: QEMU or the guest does not do its part.
    """
    from kata_runtime.network.endpoint import endpoint_class
    from kata_runtime.sandbox.record import nic_of
    from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

    seconds = UNPLUG_SECONDS if seconds is None else seconds
    match work:
        case {"kind": str(kind), "nic": dict(document)} if kind == ADD:
            nic = nic_of(document)
            endpoint_class(nic.kind).recover(session, nic, seconds)
            _stop_dhcp(session, nic)
            session.save(ended(session.record, work))
        case {"kind": str(kind), "name": str(name)} if kind == DELETE:
            recorded = next((nic for nic in session.record.nics if nic.name == name), None)
            if recorded is None:
                session.save(ended(session.record, work))
                return
            endpoint_class(recorded.kind).unplug(session, recorded, seconds)
            _stop_dhcp(session, recorded)
            _forget(session, recorded, work)
        case _:
            raise HostError(f"unfinished work {work.get('kind')!a} is none of interfaces")


def _stop_dhcp(session: Session, nic: NicRecord) -> None:
    if nic.dhcp:
        from kata_runtime.network import dhcp_client

        dhcp_client.stop(session.channel(), nic.name)


def _forget(session: Session, nic: NicRecord, work: Mapping[str, object]) -> None:
    record = ended(session.record, work)
    remaining = tuple(other for other in record.nics if other is not nic)
    mirrored = record.mirrored
    if nic.carried_from:
        from kata_runtime.network.namespace_facts import names_in

        # The guest's kernel forgot with the interface what it knew of it.
        mirrored = tuple(fact for fact in mirrored if nic.name not in names_in(fact))
    session.save(record._replace(nics=remaining, mirrored=mirrored))
