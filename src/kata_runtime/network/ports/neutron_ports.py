"""Adds NICs that are ports of Neutron, with MAC, MTU, addresses and routes from there."""

from __future__ import annotations

import os

from kata_runtime.address_types import IpAddress, Network
from kata_runtime.errors import ConflictError, GuestError, HostError, InputError
from kata_runtime.netlink.exchange import call, call_each
from kata_runtime.netlink.link import dump_links, links_of
from kata_runtime.netlink.message import NLM_F_CREATE, NLM_F_EXCL
from kata_runtime.netlink.route import add_route, new_route
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint.neutron_port import NeutronEndpoint
from kata_runtime.network.ports.ovs_ports import (
    fit,
    integration_bridge,
    is_of_ovn,
    refuse_second_use,
    require_bridge,
    with_mtu_note,
)
from kata_runtime.network.ports.port_changes import add_port
from kata_runtime.network.request_fields import host_address, mac_address, mtu_of, network_of, nic_address
from kata_runtime.network.requests import NicRequest
from kata_runtime.network.route_table import read_table
from kata_runtime.sandbox.record import EndpointKind, PortRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.netlink.exchange import Request
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.network.ports.neutron import Cloud, Neutron, Port
    from kata_runtime.network.ports.ovsdb import Database
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
    refuse_second_use(database, port.identity)
    bridge = require_bridge(database, integration_bridge(database))
    by_ovn = is_of_ovn(database, bridge.name)
    nic_name = name or _free_name(session)
    request, routes = _checked(port, nic_name)
    request = fit(request, bridge)
    record = PortRecord(
        port.identity, bridge.name, database.address, given, cloud.name, cloud.file, host, previous_host=port.host
    )

    def complete() -> list[str]:
        notes = _add_routes(session.channel(), nic_name, routes) + _server_notes(port)
        neutron.await_active(port.identity)
        return notes

    added = add_port(
        session,
        request,
        EndpointKind.NEUTRON,
        record,
        lambda session, nic, namespace: NeutronEndpoint(session, nic, namespace, database, neutron, by_ovn=by_ovn),
        complete,
    )
    return with_mtu_note(added, database, bridge, request.mtu)


def _checked(port: Port, name: str) -> tuple[NicRequest, dict[Network, IpAddress]]:
    """The NIC that a port describes, and its routes: gateways by destination."""
    try:
        addresses = tuple(_address(address, subnet.cidr) for address, subnet in port.fixed_ips)
        mac = mac_address(port.mac, "mac_address")
        routes = _routes_of(port)
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


def _add_routes(channel: AgentChannel, name: str, routes: Mapping[Network, IpAddress]) -> list[str]:
    """Add the subnets' routes to destinations without one; returns notes on those left out."""
    table = read_table(channel)
    if name not in table.links:
        raise GuestError(f"NIC {name!a} has left the container meanwhile", hint="try again")
    index = table.links[name].index
    existing = {key.network for key in table.groups()}
    requests: list[Request] = []
    notes = []
    for destination, gateway in routes.items():
        if destination in existing:
            # For example from another port of the same network: the container keeps the route that it has.
            notes.append(f"the container keeps its {destination} route, and gets none by {gateway} of the port")
        else:
            requests.append(add_route(new_route(destination, index=index, gateway=gateway), NLM_F_CREATE | NLM_F_EXCL))
    call_each(channel, Family.ROUTE, requests)
    return notes


def _server_notes(port: Port) -> list[str]:
    """A note on the DNS servers of the port's subnets, if there are any."""
    servers = sorted({server for _, subnet in port.fixed_ips for server in subnet.name_servers})
    return [f"the port's subnets name the DNS servers {', '.join(servers)}"] if servers else []


def _routes_of(port: Port) -> dict[Network, IpAddress]:
    """Gateways by destination; a subnet's host routes take precedence over its gateway."""
    wanted: dict[Network, IpAddress] = {}
    for _, subnet in port.fixed_ips:
        for destination, hop in subnet.host_routes:
            wanted.setdefault(network_of(destination, "destination"), host_address(hop, "nexthop"))
        if subnet.gateway:
            gateway = host_address(subnet.gateway, "gateway_ip")
            wanted.setdefault(Network.default(gateway.family), gateway)
    return wanted
