"""Adds, lists and deletes ports of a running container, of all kinds; their endpoints implement the differences."""

from __future__ import annotations

from hashlib import sha256

from kata_runtime.errors import ConflictError, InputError, OnlyPlannedError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.guest_nic import NicState
from kata_runtime.network.interfaces import AddedNic, find_record, new_nic, plug_nic, read_interfaces, remove_nic
from kata_runtime.network.namespace import OwnNamespace
from kata_runtime.network.pending_nics import begun_nics, finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kata_runtime.address_types import InterfaceAddress, MacAddress
    from kata_runtime.network.endpoint import Endpoint
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import EndpointKind, NicRecord, PortRecord
    from kata_runtime.sandbox.session import Session

    MakeEndpoint = Callable[[Session, NicRecord, Namespace], Endpoint]

_NAME_DIGITS = 10


class ListedPort(NamedTuple):
    """A port, with its NIC as the guest's kernel reports it."""

    port: str
    name: str
    device: str
    kind: EndpointKind
    bridge: str
    mac: MacAddress
    ip: tuple[InterfaceAddress, ...]
    mtu: int


def add_port(
    session: Session, request: NicRequest, kind: EndpointKind, port: PortRecord, make: MakeEndpoint
) -> AddedNic:
    """Create a TAP, plug it into its switch and into the running VM, or leave everything as it was.

    A ``port`` without a name gets that of its TAP.

    :raise InputError, ConflictError, LimitError: the request is not possible in this container.
    :raise HostError, QemuError, GuestError, KernelError, DeadlineError: host, switch, QEMU or guest failed.
    """
    device = tap_name(session.root, session.container_id, request.name)
    request = request._replace(device=device)
    with OwnNamespace() as namespace:
        nic = new_nic(session, request, kind, namespace.identity)
        nic = nic._replace(port=port._replace(port=port.port or device))
        return plug_nic(session, request, nic, make(session, nic, namespace))


def tap_name(root: str, container_id: str, name: str) -> str:
    """The TAP's name for NIC ``name`` of a container: it is the same each time, and differs between containers."""
    return f"kt{sha256(f'{root}/{container_id}/{name}'.encode()).hexdigest()[:_NAME_DIGITS]}"


def delete_port(session: Session, text: str) -> None:
    """Unplug the NIC of the port that ``text`` names, and delete what was created for it.

    :raise InputError: there is no such port. :raise ConflictError: there are several.
    :raise DeadlineError, QemuError, HostError: as ``delete_interface``.
    """
    nic = _find(session, text)
    if nic is not None and nic in session.record.nics:
        remove_nic(session, nic)
        return
    for work, begun_nic in begun_nics(session.record):
        if begun_nic is nic:
            if session.dry_run:
                raise OnlyPlannedError([f"qemu: remove NIC {nic.name}, whose addition was interrupted"])
            finish(session, work)
            return
    if any(work.nic is not None and _is_named(work.nic, text) for work in session.recovered):
        # As in delete_interface: the recovery that preceded this command has unplugged it.
        return
    if find_record(session, text) is not None:
        raise InputError(
            f"NIC {text!a} of container {session.container_id} was added with add-iface", hint="del-iface deletes it"
        )
    raise InputError(
        f"container {session.container_id} has no port {text!a}", hint="list-ports shows those that can be deleted"
    )


def list_ports(session: Session) -> list[ListedPort]:
    """The ports in the order they were added, with the guest's current state of their NICs.

    :raise KernelError, GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    return list(_listed(session))


def _listed(session: Session) -> Iterator[ListedPort]:
    for nic, seen in read_interfaces(session):
        if nic.port is not None:
            now = seen or NicState(nic.name, nic.mac, nic.mtu, ())
            yield ListedPort(
                nic.port.port, now.name, nic.device, nic.kind, nic.port.bridge, now.mac, now.addresses, now.mtu
            )


def _find(session: Session, text: str) -> NicRecord | None:
    """The port, perhaps half-added, that ``text`` names.

    :raise ConflictError: it names several.
    """
    nics = (*session.record.nics, *(nic for _, nic in begun_nics(session.record)))
    named = [nic for nic in nics if _is_named(nic, text)]
    # Devices differ, but one's iface-id or name in Neutron can be another's name in the container.
    named = [nic for nic in named if nic.device == text] or named
    if len(named) > 1:
        ports = " and of ".join(f"NIC {nic.name!a} on device {nic.device!a}" for nic in named)
        raise ConflictError(f"port {text!a} is that of {ports}", hint="name it by its device")
    return named[0] if named else None


def _is_named(nic: NicRecord, text: str) -> bool:
    return nic.port is not None and text in (nic.port.port, nic.port.given or nic.name, nic.name, nic.device)
