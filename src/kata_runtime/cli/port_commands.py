"""kata-network add-port, list-ports and del-port."""

from __future__ import annotations

from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.settings import ovsdb_of
from kata_runtime.cli.streams import read_input
from kata_runtime.errors import InputError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.sandbox.record import NicRecord

_OF_NEUTRON = ("--name", "--migrate", "--cloud")
_IFACE_ID_CHARACTERS = 255


def add_port(call: Call) -> tuple[AddedNic, NicRecord]:
    """Add a port; returns the result and the NIC's record.

    :raise UsageError: options that contradict each other. :raise KataError: it cannot be added.
    """
    bridge, ovs = call.value("--bridge"), call.value("--ovs")
    if bridge is not None and ovs is not None:
        raise UsageError("add-port takes --bridge or --ovs, not both")
    if ovs is None and call.value("--iface-id") is not None:
        raise UsageError("--iface-id needs --ovs")
    if bridge is not None and call.value("--ovsdb") is not None:
        raise UsageError("--ovsdb has no meaning with --bridge")
    if bridge is None and ovs is None:
        return _add_neutron_port(call)
    for option in _OF_NEUTRON:
        if call.value(option) is not None:
            raise UsageError(f"{option} goes with a port of Neutron, not with --bridge or --ovs")
    if bridge is not None:
        return _add_bridge_port(call, bridge)
    return _add_ovs_port(call, ovs or "", _iface_id(call))


def list_ports(call: Call) -> list[dict[str, object]]:
    """The container's ports, in the form that is printed."""
    from kata_runtime.network.ports import port_changes

    with session_of(call, "interface", changes=False) as session:
        ports = port_changes.list_ports(session)
    return [{**port._asdict(), "mac": str(port.mac), "ip": [str(address) for address in port.ip]} for port in ports]


def delete_port(call: Call) -> None:
    """Delete the port that the second operand names."""
    from kata_runtime.network.ports import port_changes

    with session_of(call, "interface") as session:
        port_changes.delete_port(session, call.operands[1])


def _add_bridge_port(call: Call, bridge: str) -> tuple[AddedNic, NicRecord]:
    from kata_runtime.network.endpoint.bridge_port import BridgeEndpoint
    from kata_runtime.network.ports import port_changes
    from kata_runtime.network.requests import read_port_request
    from kata_runtime.sandbox.record import EndpointKind, PortRecord

    request = read_port_request(read_input(call.operands[1]))
    with session_of(call, "interface") as session:
        port = PortRecord("", bridge)
        added = port_changes.add_port(session, request, EndpointKind.BRIDGE, port, BridgeEndpoint)
        return added, session.record.nics[-1]


def _add_ovs_port(call: Call, bridge_name: str, iface_id: str) -> tuple[AddedNic, NicRecord]:
    from kata_runtime import optional_packages
    from kata_runtime.network.requests import read_port_request

    request = read_port_request(read_input(call.operands[1]))
    optional_packages.require(optional_packages.OVSDBAPP)
    from kata_runtime.network.clients.ovsdb import Database
    from kata_runtime.network.ports import ovs_ports

    # Before the container is locked: this may take seconds.
    with Database(ovsdb_of(call)) as database:
        bridge = ovs_ports.require_bridge(database, bridge_name)
        request = ovs_ports.fit(request, bridge)
        with session_of(call, "interface") as session:
            added = ovs_ports.add_ovs_port(session, request, database, bridge, iface_id)
            return added, session.record.nics[-1]


def _add_neutron_port(call: Call) -> tuple[AddedNic, NicRecord]:
    from kata_runtime import optional_packages
    from kata_runtime.network.request_fields import interface_name

    given, name = call.operands[1], call.value("--name")
    if name is not None:
        interface_name(name, "--name")
    optional_packages.require(optional_packages.OVSDBAPP)
    optional_packages.require(optional_packages.OPENSTACKSDK)
    from kata_runtime.network.clients.neutron import Neutron, chosen_cloud
    from kata_runtime.network.clients.ovsdb import Database
    from kata_runtime.network.ports import neutron_ports

    cloud = chosen_cloud(call.value("--cloud") or "")
    # Before the container is locked: this may take seconds.
    with Database(ovsdb_of(call)) as database:
        neutron = Neutron(cloud)
        port = neutron.find_port(given)
        with session_of(call, "interface") as session:
            added = neutron_ports.add_neutron_port(
                session, database, neutron, port,
                cloud=cloud, given=given, name=name or "", migrate=call.value("--migrate") is not None,
            )  # fmt: skip
            return added, session.record.nics[-1]


def _iface_id(call: Call) -> str:
    iface_id = call.value("--iface-id")
    if iface_id is None:
        return ""
    if not iface_id.isprintable() or not 1 <= len(iface_id) <= _IFACE_ID_CHARACTERS:
        raise InputError(
            f"--iface-id is {iface_id[:80]!a}", hint=f"it must be 1-{_IFACE_ID_CHARACTERS} printable characters"
        )
    return iface_id
