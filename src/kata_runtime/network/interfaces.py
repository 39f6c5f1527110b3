"""NICs of a running container: add, list, delete.

A NIC has state in four places: the record, QEMU's back end, QEMU's device, the guest's kernel. The intended change is
written to the record before it begins; if the command is interrupted, the next one finishes or undoes it.
"""

from __future__ import annotations

from _socket import AF_INET6

from kata_runtime.errors import (
    ConflictError,
    DeadlineError,
    InputError,
    KataError,
    LimitError,
    OnlyPlannedError,
    QemuError,
)
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.transport import Family
from kata_runtime.network.guest_nic import NicState, read_states
from kata_runtime.network.pending_nics import begun_nics, deletion, finish, leaving_names, recover
from kata_runtime.sandbox.pending import begun, ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.network.endpoint import Endpoint
    from kata_runtime.network.request_fields import GivenAddress
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import EndpointKind, NicRecord, Work
    from kata_runtime.sandbox.session import Session

# include/uapi/linux/if_ether.h ETH_MIN_MTU, include/uapi/linux/ipv6.h IPV6_MIN_MTU
_MTU_MIN = 68
_MTU_MIN_IPV6 = 1280


class AddedNic(NamedTuple):
    """A NIC that was added; its PCI path is ``<slot>.<function of the root port>/<slot behind it>``, hexadecimal.

    ``addresses`` are those of the request, as they were given, then those by DHCP. ``note`` is one line on what the NIC
    lacks of the request, empty when it lacks nothing.
    """

    pci_address: str
    addresses: tuple[GivenAddress, ...]
    note: str = ""


def list_interfaces(session: Session) -> list[NicState]:
    """The NICs added by kata-network, in the order they were added, with the guest's current names, MTUs and addresses.

    :raise KernelError, GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    return [listed for _, listed in read_interfaces(session) if listed is not None]


def read_interfaces(session: Session) -> list[tuple[NicRecord, NicState | None]]:
    """The NICs added by kata-network with their records; None for one that the guest does not have.

    :raise KernelError, GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    leaving = leaving_names(session.record)
    nics = [nic for nic in session.record.nics if not nic.carried_from and nic.name not in leaving]
    if not nics:
        return []
    answers = call_each(session.channel(), Family.ROUTE, [dump_links(), dump_addresses()])
    states = read_states(*answers)
    by_name = {state.name: state for state in states}
    by_mac = {state.mac: state for state in states}
    found = ((nic, by_name.get(nic.name) or by_mac.get(nic.mac)) for nic in nics)
    return [(nic, None if state is None else _listed(nic, state)) for nic, state in found]


def _listed(nic: NicRecord, state: NicState) -> NicState:
    """Addresses in the order of the request, then others that the guest has; the kernel lists IPv6 newest first."""
    asked = {address: place for place, address in enumerate(nic.addresses)}
    # The kernel gives every NIC a link-local address by itself; it is listed only when it was requested.
    shown = [found for found in state.addresses if not found.address.is_link_local or found in asked]
    shown.sort(key=lambda found: asked.get(found, len(asked)))
    return state._replace(addresses=tuple(shown))


def find_record(session: Session, name: str) -> NicRecord | None:
    """The record of NIC ``name``, if kata-network added it."""
    return next((nic for nic in session.record.nics if nic.name == name and not nic.carried_from), None)


def add_interface(session: Session, request: NicRequest) -> AddedNic:
    """Plug a NIC into the running VM and configure it in the guest, or leave everything as it was.

    :raise InputError, ConflictError, LimitError: the request is not possible in this container.
    :raise HostError, QemuError, GuestError, KernelError, DeadlineError: host, QEMU or guest failed.
    """
    from kata_runtime.network.endpoint import Endpoint, endpoint_class, kind_of
    from kata_runtime.network.namespace import OwnNamespace
    from kata_runtime.sandbox.record import EndpointKind

    # Connect first: the agent gets ready while the host's side is checked.
    session.channel()
    kind = kind_of(request)
    with OwnNamespace() as namespace:
        nic = new_nic(session, request, kind, namespace.identity if kind == EndpointKind.TAP else "")
        chosen = endpoint_class(kind)
        if session.dry_run:
            chosen.check(session, nic, namespace)
            chosen = Endpoint
        return plug_nic(session, request, nic, chosen(session, nic, namespace))


def plug_nic(session: Session, request: NicRequest, nic: NicRecord, endpoint: Endpoint) -> AddedNic:
    """Plug ``endpoint`` as the NIC ``nic`` of ``new_nic``, or leave everything as it was; closes ``endpoint``.

    :raise ConflictError, LimitError, HostError, QemuError, GuestError, KernelError, DeadlineError: see add_interface.
    """
    from kata_runtime.network.guest_nic import configure, watch
    from kata_runtime.vmm.qemu_arguments import root_port_address

    try:
        channel = session.channel()
        with watch(channel) as arrivals:
            _check_guest(arrivals.links_before, request)
            if nic.queues > 1:
                from kata_runtime.network.queues import require_memory

                require_memory(channel, nic.queues)
            if session.dry_run:
                from kata_runtime.network.planned_nics import addition_steps

                plan = endpoint.plan()
                steps = addition_steps(nic, request, root_port_address(nic.slot))
                raise OnlyPlannedError([*plan.before, *steps, *plan.after], plan.notes)
            work = _begin_addition(session, nic)
            try:
                endpoint.plug()
                index = arrivals.wait(nic.mac)
                notes = [_use_queues(session, nic, index)]
                configure(channel, index, request)
                leased = _lease(channel, nic, index, notes)
                notes += endpoint.complete()
            except BaseException:
                _undo_addition(session, work)
                raise
            # A port that was taken over from another host is not bound to that host again when this NIC is deleted.
            added = nic if nic.port is None else nic._replace(port=nic.port._replace(previous_host=""))
            session.save(ended(session.record, work)._replace(nics=(*session.record.nics, added)))
    finally:
        endpoint.close()
    return AddedNic(root_port_address(nic.slot), (*request.addresses, *leased), "; ".join(filter(None, notes)))


def _lease(channel: AgentChannel, nic: NicRecord, index: int, notes: list[str]) -> tuple[GivenAddress, ...]:
    """Run DHCP where it was requested, and return the addresses; a smaller MTU is added to ``notes``."""
    if not nic.dhcp:
        return ()
    from kata_runtime.network import dhcp_client
    from kata_runtime.network.request_fields import GivenAddress

    lease = dhcp_client.start(channel, index, nic.name)
    if lease.mtu < nic.mtu:
        notes.append(f"NIC {nic.name!a} has mtu {lease.mtu} instead of {nic.mtu}, as its DHCP server says")
    return tuple(GivenAddress(address, str(address)) for address in lease.addresses)


def _use_queues(session: Session, nic: NicRecord, index: int) -> str:
    """Enable the NIC's queue pairs in the guest; returns a note when it cannot use them all, or an empty text."""
    if nic.queues < 2:
        return ""
    from kata_runtime.network.queues import use_queues

    vcpus = session.record.vcpus
    used = use_queues(session.channel(), index, nic.queues, vcpus)
    if used == nic.queues:
        return ""
    have = f"{vcpus} vCPU{'s' * (vcpus > 1)}"
    return (
        f"NIC {nic.name!a} uses {used} of its {nic.queues} queue pairs, as the container has {have}; "
        "start it with more default_vcpus for more"
    )


def delete_interface(session: Session, name: str) -> None:
    """Unplug a NIC from the running VM; its device on the host is kept.

    :raise InputError: kata-network added no NIC of that name.
    :raise DeadlineError: the guest does not release it; the NIC stays recorded and can be deleted again.
    :raise QemuError: QEMU refused or ended.
    """
    nic = find_record(session, name)
    if nic is not None:
        remove_nic(session, nic)
        return
    for work, begun_nic in begun_nics(session.record):
        if begun_nic.name == name:
            if session.dry_run:
                raise OnlyPlannedError([f"qemu: remove NIC {name}, whose addition was interrupted"])
            finish(session, work)
            return
    if any(work.nic_name == name for work in session.recovered):
        # Its addition or deletion was interrupted, and the recovery that preceded this command has unplugged it.
        return
    raise InputError(
        f"container {session.container_id} has no NIC {name!a} that was added with add-iface",
        field="name",
        hint="list-ifaces shows those that can be deleted",
    )


def remove_nic(session: Session, nic: NicRecord) -> None:
    """Unplug a recorded NIC from the running VM, and delete what ``plug`` created for it on the host.

    :raise DeadlineError, QemuError, HostError: as ``delete_interface``.
    """
    if session.dry_run:
        from kata_runtime.network.planned_nics import deletion_steps

        raise OnlyPlannedError(deletion_steps(nic))
    work = deletion(session.record, nic.name)
    session.save(begun(ended(session.record, work), work))
    try:
        finish(session, work)
    except (DeadlineError, QemuError) as error:
        from kata_runtime.vmm.monitor import UnansweredError

        # The guest or QEMU refused, and the NIC is still there: it stays in the record, and can be deleted again. After
        # other failures, such as a lost answer or a full disk, it may be gone: the work stays pending.
        is_unknown = isinstance(error, UnansweredError) or (isinstance(error, QemuError) and not error.error_class)
        if not is_unknown:
            session.save(ended(session.record, work))
        raise


def _check_mtu(request: NicRequest) -> None:
    """Refuse an MTU that the guest's kernel would refuse, before anything is changed."""
    if request.mtu < _MTU_MIN:
        raise InputError(
            f"mtu {request.mtu} is too small: the container's kernel takes {_MTU_MIN} or more for Ethernet",
            field="mtu",
        )
    if request.mtu < _MTU_MIN_IPV6 and any(given.value.address.family == AF_INET6 for given in request.addresses):
        raise InputError(
            f"mtu {request.mtu} is too small: the container's kernel takes {_MTU_MIN_IPV6} or more for IPv6",
            field="mtu",
        )


def new_nic(session: Session, request: NicRequest, kind: EndpointKind, namespace: str) -> NicRecord:
    """The record of a NIC to be added, at a free root port.

    :raise InputError: the guest's kernel would refuse the MTU. :raise ConflictError: device, name or MAC is in use.
    :raise LimitError: there is no free root port.
    """
    from kata_runtime.sandbox.record import NicRecord

    _check_mtu(request)
    record = session.record
    half_added = [nic for _, nic in begun_nics(record)]
    _refuse_conflicts(request, namespace, record.nics, half_added)
    used = {nic.slot for nic in (*record.nics, *half_added)}
    slot = next((number for number in range(record.root_ports) if number not in used), None)
    if slot is None:
        raise LimitError(
            f"the container has {len(used)} NICs, and its machine has no room for another",
            limit=record.root_ports,
            hint="delete one, or start it with a larger default_root_ports (32 at most)",
        )
    nic = NicRecord(
        name=request.name,
        device=request.device,
        mac=request.mac,
        mtu=request.mtu,
        addresses=tuple(given.value for given in request.addresses),
        slot=slot,
        queues=request.queues,
        vhost_user_socket=request.vhost_user_socket,
        kind=kind,
        namespace=namespace,
        offload=request.offload,
        dhcp=request.dhcp,
    )
    _refuse_foreign(session, nic)
    return nic


def _refuse_conflicts(
    request: NicRequest, namespace: str, added: Sequence[NicRecord], half_added: Sequence[NicRecord]
) -> None:
    """Refuse a device, name or MAC that another NIC of the container has."""
    for nic in half_added:
        if (
            (nic.namespace, nic.device) == (namespace, request.device)
            or nic.name == request.name
            or nic.mac == request.mac
        ):
            raise ConflictError(
                f"NIC {nic.name!a} on device {nic.device!a}, whose addition was interrupted, is still in the container",
                hint="del-iface waits until the container releases it",
            )
    for nic in added:
        # First the name, since the device of a port is named after it, and its user does not know that.
        if nic.name == request.name:
            raise ConflictError(f"the container has a NIC {nic.name!a} already", hint="choose another name")
        if (nic.namespace, nic.device) == (namespace, request.device):
            raise ConflictError(
                f"device {request.device!a} serves NIC {nic.name!a} of this container already",
                hint="a device serves one NIC",
            )
        if nic.mac == request.mac:
            raise ConflictError(f"hwAddr {request.mac} is that of NIC {nic.name!a} already")


def _check_guest(states: Sequence[NicState], request: NicRequest) -> None:
    """Refuse a name or MAC of an interface that is in the guest, but not in the record."""
    for state in states:
        if state.name == request.name:
            raise ConflictError(
                f"the container has an interface {request.name!a} of its own", hint="choose another name"
            )
        if state.mac == request.mac:
            raise ConflictError(f"hwAddr {request.mac} is that of the container's own interface {state.name!a}")


def _begin_addition(session: Session, nic: NicRecord) -> Work:
    """Write the intended addition to the record, unless another sandbox has taken the device meanwhile."""
    from kata_runtime.sandbox.lock import global_lock
    from kata_runtime.sandbox.record import Work, WorkKind

    with global_lock(session.root, session.lock_wait):
        _refuse_foreign(session, nic)
        work = Work(WorkKind.ADD_NIC, nic)
        session.save(begun(session.record, work))
    return work


def _refuse_foreign(session: Session, nic: NicRecord) -> None:
    """Refuse a device of another sandbox, and name that; the kernel would refuse a TAP without saying who has it.

    Also refuse a port of another sandbox: a switch would send the port's packets to one of its two TAPs, at random.
    """
    from kata_runtime.sandbox.neighbours import user_of_device, user_of_port

    other = user_of_device(session.root, session.container_id, nic.namespace, nic.device)
    if other is not None:
        raise ConflictError(
            f"device {nic.device!a} serves container {other} already", hint="a device serves one container"
        )
    other = None if nic.port is None else user_of_port(session.root, session.container_id, nic.port)
    if nic.port is not None and other is not None:
        raise ConflictError(
            f"port {nic.port.port!a} serves container {other} already",
            hint=f"'kata-runtime kata-network del-port {other} {nic.port.port}' deletes it there",
        )


def _undo_addition(session: Session, work: Work) -> None:
    """Unplug as much of the NIC as was plugged; what cannot be unplugged now stays pending."""
    try:
        recover(session, work)
    except KataError:
        # The reason why the addition failed is what the user needs; the next command tries again.
        return
