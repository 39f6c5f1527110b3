"""Adds NICs in a bridge of Open vSwitch, whether or not OVN or Neutron's agent controls it."""

from __future__ import annotations

import errno

from kata_runtime.errors import ConflictError, InputError, KernelError
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.link import get_link
from kata_runtime.netlink.local import LocalTransport
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint.ovs_port import OvsAttachment, OvsEndpoint
from kata_runtime.network.ports import path_mtu
from kata_runtime.network.ports.port_changes import add_port
from kata_runtime.sandbox.record import EndpointKind, PortRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.clients.ovsdb import Bridge, Database
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.session import Session

# ovs-vswitchd reads the frames from the TAP by a packet socket and forwards them with the guest's partial checksums.
_USER_SPACE = "netdev"
DEFAULT_BRIDGE = "br-int"


def fit(request: NicRequest, bridge: Bridge) -> NicRequest:
    """``request``, without offload if ``bridge`` forwards in user space and would not complete checksums."""
    return request._replace(offload=request.offload and bridge.datapath_type != _USER_SPACE)


def add_ovs_port(session: Session, request: NicRequest, database: Database, bridge: Bridge, iface_id: str) -> AddedNic:
    """Add a NIC in a bridge of Open vSwitch, by ``add_port``; ``iface_id`` may be empty.

    :raise KataError: as ``add_port``.
    """
    attachment = plan_attachment(database, bridge, iface_id, request.mtu)
    return add_port(
        session,
        request,
        EndpointKind.OVS,
        PortRecord(iface_id, bridge.name, ovsdb=database.address),
        lambda session, nic, namespace: OvsEndpoint(session, nic, namespace, database, attachment),
    )


def plan_attachment(database: Database, bridge: Bridge, iface_id: str, mtu: int) -> OvsAttachment:
    """How to add a TAP to ``bridge``; ``iface_id`` may be empty.

    :raise ConflictError: an interface has this iface-id.
    """
    by_ovn = bool(iface_id) and is_of_ovn(database, bridge.name)
    leftover = _leftover(database, iface_id) if iface_id else ""
    return OvsAttachment(iface_id, by_ovn, leftover, _mtu_note(database, bridge, mtu))


def require_bridge(database: Database, name: str) -> Bridge:
    """The bridge of this name.

    :raise InputError: there is none.
    """
    bridge = database.find_bridge(name)
    if bridge is None:
        raise InputError(
            f"Open vSwitch has no bridge {name!a}",
            hint="'ovs-vsctl list-br' shows those it has; a Linux bridge is named with --bridge",
        )
    return bridge


def integration_bridge(database: Database) -> str:
    """The name of the bridge whose ports OVN, or Neutron's agent, manages (ovn-controller(8))."""
    return database.external_ids().get("ovn-bridge", DEFAULT_BRIDGE)


def is_of_ovn(database: Database, bridge: str) -> bool:
    """Whether ovn-controller manages the ports of ``bridge``."""
    return "ovn-remote" in database.external_ids() and integration_bridge(database) == bridge


def _leftover(database: Database, iface_id: str) -> str:
    """The interface of this host that has ``iface_id`` although its NIC is gone; empty if no interface has it.

    :raise ConflictError: an interface that is in use has it.
    """
    found = database.find_interface(iface_id)
    if found is None:
        return ""
    if found.container and found.is_dead and not _exists(found.name):
        # Its container was deleted while the database did not answer, or its VM has ended.
        return found.name
    user = f"of container {found.container}" if found.container else "of another program"
    raise ConflictError(
        f"port {iface_id!a} is in use on this host by interface {found.name!a} {user}",
        hint=f"delete that first; 'ovs-vsctl del-port {found.name}' if nothing else does",
    )


def _exists(name: str) -> bool:
    with LocalTransport() as transport:
        try:
            call(transport, Family.ROUTE, get_link(name))
        except KernelError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
    return True


def _mtu_note(database: Database, bridge: Bridge, mtu: int) -> str:
    """A note if ``mtu`` is too large for the path; empty otherwise."""
    if not is_of_ovn(database, bridge.name):
        return path_mtu.bridge_note(bridge, mtu)
    with LocalTransport() as transport:
        return path_mtu.tunnel_note(transport, database.external_ids(), mtu)
