"""Connects the interfaces of a container's network namespace to its VM, and mirrors their configuration in the guest.

``reconcile`` can be called at any time and repeatedly: it compares the namespace with the record and applies the
difference. What the guest has that the namespace never had is not touched.
"""

from __future__ import annotations

from kata_runtime.errors import ConflictError, HostError, KataError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.link import ARPHRD_ETHER, TUN_TYPE_TAP
from kata_runtime.network.endpoint import endpoint_class
from kata_runtime.network.interfaces import new_nic, plug_nic
from kata_runtime.network.mirror import mirror
from kata_runtime.network.namespace_facts import Holdings, kind_of, mac_of, names_in, read_holdings
from kata_runtime.network.pending_nics import begun_nics, deletion
from kata_runtime.network.pending_nics import recover as recover_nic
from kata_runtime.network.requests import NicRequest
from kata_runtime.sandbox.pending import begun, ended
from kata_runtime.sandbox.record import EndpointKind, Work, WorkKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata_runtime.netlink.link import Link
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord, Record
    from kata_runtime.sandbox.session import Session


class _Chosen(NamedTuple):
    """The interfaces to connect, with the kind of their back end, and messages on those that cannot be connected."""

    links: list[tuple[Link, EndpointKind]]
    refused: list[str]


def reconcile(session: Session, namespace: Namespace, *, creating: bool) -> list[str]:
    """Make the guest mirror ``namespace``; returns a message for each thing that failed.

    All interfaces but lo that are up or have an address are connected to the VM under their own names; TAPs only when
    ``creating``, since later ones are left for add-iface. An interface stays connected until it is deleted. When
    ``creating``, a failure is raised instead.

    :raise ConflictError: (when creating) an interface cannot be connected.
    :raise KataError: host, QEMU or guest failed; completed steps are recorded, and the next call does the rest.
    """
    with namespace.transport() as transport:
        holdings = read_holdings(transport)
    chosen = _choose(session.record, namespace.identity, holdings, taps=creating)
    notes = list(chosen.refused)
    if creating and notes:
        raise ConflictError(notes[0], hint="take it out of the namespace, or set it down and delete its addresses")
    current = {(link.name, link.index): kind for link, kind in chosen.links}
    for nic in _carried(session.record, namespace.identity):
        if current.get((nic.device, nic.interface)) != nic.kind:
            with _ErrorToNote(notes, creating=creating):
                _remove(session, nic)
    for link, kind in chosen.links:
        if not any((nic.device, nic.interface) == (link.name, link.index) for nic in session.record.nics):
            with _ErrorToNote(notes, creating=creating):
                _plug(session, namespace, link, kind)
    notes += [str(reason) for reason in _follow(session, namespace.identity, holdings, creating=creating)]
    return notes


def recover(session: Session, work: Work) -> None:
    """Finish an interrupted ``reconcile``.

    :raise GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    _change(session, work)


def release_all(record: Record, notify: Callable[[str], None]) -> None:
    """Delete everything that was created on this host for the NICs of a VM that has ended.

    ``notify`` is called with a line for each thing that could not be deleted because the service that has it, such as
    Neutron, does not answer.

    :raise HostError: the kernel refused for one NIC; the others were released all the same.
    """
    failures = []
    for nic in (*record.nics, *(nic for _, nic in begun_nics(record))):
        try:
            for leftover in endpoint_class(nic.kind).release(nic):
                notify(leftover)
        except HostError as error:
            failures.append(error)
    for failure in failures:
        raise failure


class _ErrorToNote:
    """A context manager that turns an error into a note, except when ``creating``."""

    def __init__(self, notes: list[str], *, creating: bool) -> None:
        self._notes = notes
        self._creating = creating

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if self._creating or not isinstance(error, KataError):
            return False
        self._notes.append(str(error))
        return True


def _carried(record: Record, identity: str) -> list[NicRecord]:
    return [nic for nic in record.nics if nic.carried_from and nic.namespace == identity]


def _choose(record: Record, identity: str, holdings: Holdings, *, taps: bool) -> _Chosen:
    from kata_runtime.network.endpoint.redirect import tap_name

    carried = {(nic.device, nic.interface): nic.kind for nic in _carried(record, identity)}
    # TAPs of redirections, and those that add-iface plugged.
    others = {tap_name(nic.slot) for nic in record.nics if nic.kind == EndpointKind.REDIRECT}
    others |= {nic.device for nic in record.nics if nic.namespace == identity and not nic.carried_from}
    configured = holdings.configured()
    by_index = {link.index: link for link in holdings.links}
    chosen = _Chosen([], [])
    for link in holdings.links:
        if link.is_loopback or link.name in others:
            continue
        known = carried.get((link.name, link.index))
        if known is not None:
            chosen.links.append((link, known))
            continue
        # A port of a bridge or bond is used through its master.
        if link.master or not (link.is_up or link.index in configured):
            continue
        kind = _kind_of(link)
        lower = by_index.get(link.lower)
        if kind is None:
            chosen.refused.append(_refusal(link, "it is no Ethernet interface"))
        elif lower is not None and link.kind != "veth" and lower.is_up:
            chosen.refused.append(_refusal(link, f"its lower interface is {lower.name!a}, whose packets go to the VM"))
        elif link.kind != "tun" or taps:
            chosen.links.append((link, kind))
    return chosen


def _kind_of(link: Link) -> EndpointKind | None:
    if link.kind == "tun":
        if link.tun_type != TUN_TYPE_TAP:
            return None
        # A TAP that is not persistent exists while the process that made it, such as slirp4netns, has it open.
        return EndpointKind.TAP if link.tun_persistent else EndpointKind.REDIRECT
    if link.kind == "macvtap":
        return EndpointKind.MACVTAP
    return EndpointKind.REDIRECT if link.hardware == ARPHRD_ETHER else None


def _refusal(link: Link, why: str) -> str:
    return f"interface {link.name!a} ({link.kind or 'device'}) of the network namespace cannot be in the VM: {why}"


def _plug(session: Session, namespace: Namespace, link: Link, kind: EndpointKind) -> None:
    request = NicRequest(link.name, link.name, (), link.mac, link.mtu, "", 0)
    nic = new_nic(session, request, kind, namespace.identity)
    nic = nic._replace(carried_from=namespace.path, interface=link.index)
    plug_nic(session, request, nic, endpoint_class(kind)(session, nic, namespace))


def _remove(session: Session, nic: NicRecord) -> None:
    """Unplug a NIC; if the guest failed to release it before, it is not waited for again.

    :raise ConflictError: the guest does not release it; the next call tries again.
    """
    work = deletion(session.record, nic.name)
    session.save(begun(ended(session.record, work), work))
    recover_nic(session, work)
    if nic in session.record.nics:
        raise ConflictError(f"the guest does not release NIC {nic.name!a}, whose interface was deleted")


def _follow(session: Session, identity: str, holdings: Holdings, *, creating: bool) -> list[KataError]:
    """Mirror addresses, routes and neighbours of the connected interfaces; returns the kernel's refusals."""
    names = {nic.interface: nic.name for nic in _carried(session.record, identity)}
    names.update({link.index: link.name for link in holdings.links if link.is_loopback})
    facts = holdings.facts(names)
    if list(session.record.mirrored) == facts:
        return []
    work = Work(WorkKind.MIRROR, facts=tuple(facts))
    session.save(begun(session.record, work))
    refused = _change(session, work)
    if creating:
        for reason in refused:
            raise reason
    return refused


def _change(session: Session, work: Work) -> list[KataError]:
    """Mirror the facts of ``work`` and record them; refused ones are not recorded, and so are tried again."""
    refused = mirror(session.channel(), session.record.mirrored, work.facts)
    done = tuple(fact for fact in work.facts if fact not in refused)
    nics = tuple(_refreshed(nic, done) if nic.carried_from else nic for nic in session.record.nics)
    session.save(ended(session.record, work)._replace(nics=nics, mirrored=done))
    return list(refused.values())


def _refreshed(nic: NicRecord, facts: Sequence[str]) -> NicRecord:
    """The record of a NIC, with MAC and MTU from the facts."""
    own = {kind_of(fact): fact.rpartition(" ")[2] for fact in facts if names_in(fact) == [nic.name]}
    mac = mac_of(own["mac"]) if "mac" in own else nic.mac
    return nic._replace(mac=mac, mtu=int(own.get("mtu", nic.mtu)))
