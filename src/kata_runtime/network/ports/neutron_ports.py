"""Adds NICs that are ports of Neutron, with MAC, MTU and addresses from there."""

from __future__ import annotations

import os

from kata_runtime.errors import ConflictError, HostError, InputError
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.link import dump_links, links_of
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint.neutron_port import NeutronEndpoint
from kata_runtime.network.endpoint.neutron_routes import routes_of
from kata_runtime.network.ports.ovs_ports import fit, integration_bridge, plan_attachment, require_bridge
from kata_runtime.network.ports.port_changes import add_port
from kata_runtime.network.request_fields import mac_address, mtu_of, nic_address
from kata_runtime.network.requests import NicRequest
from kata_runtime.sandbox.record import EndpointKind, PortRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.address_types import IpAddress, Network
    from kata_runtime.network.clients.neutron import Cloud, Neutron, Port
    from kata_runtime.network.clients.ovsdb import Database
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.network.request_fields import GivenAddress
    from kata_runtime.sandbox.session import Session


def host_name(database: Database) -> str:
    """This host's name in Neutron and OVN."""
    return database.external_ids().get("hostname") or os.uname().nodename


def add_neutron_port(
    session: Session,
    database: Database,
    neutron: Neutron,
    port: Port,
    *,
    cloud: Cloud,
    given: str,
    name: str,
    migrate: bool,
) -> AddedNic:
    """Bind ``port`` to this host and add it as NIC ``name``; without one, as the first free of eth0, eth1, ...

    ``given`` is how the user named the port. A port that is bound to another host is taken over only with ``migrate``.

    :raise KataError: as ``add_port``.
    """
    host = host_name(database)
    if port.host not in ("", host) and not migrate:
        raise ConflictError(
            f"port {given!a} is bound to host {port.host!a}, and this is {host!a}", hint="--migrate takes it over"
        )
    bridge = require_bridge(database, integration_bridge(database))
    request, routes = _checked(port, name or _free_name(session))
    request = fit(request, bridge)
    attachment = plan_attachment(database, bridge, port.identity, request.mtu)
    record = PortRecord(
        port.identity, bridge.name, database.address, given, cloud.name, cloud.file, host, previous_host=port.host
    )
    return add_port(
        session,
        request,
        EndpointKind.NEUTRON,
        record,
        lambda session, nic, namespace: NeutronEndpoint(
            session, nic, namespace, database, attachment, neutron, port, routes
        ),
    )


def _checked(port: Port, name: str) -> tuple[NicRequest, dict[Network, IpAddress]]:
    """The NIC that a port describes, and its routes: gateways by destination."""
    try:
        addresses = tuple(_address(address, subnet.cidr) for address, subnet in port.fixed_ips)
        mac = mac_address(port.mac, "mac_address")
        routes = routes_of(port)
        return NicRequest("", name, addresses, mac, mtu_of(port.mtu, "the network's mtu"), "", 0), routes
    except InputError as error:
        raise HostError(f"port {port.identity} of Neutron cannot be a NIC: {error}") from error


def _address(address: str, cidr: str) -> GivenAddress:
    return nic_address(address, cidr.rpartition("/")[2], f"fixed IP {address}")


def _free_name(session: Session) -> str:
    taken = {link.name for link in links_of(call(session.channel(), Family.ROUTE, dump_links()))}
    taken |= {nic.name for nic in session.record.nics}
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return f"eth{number}"
