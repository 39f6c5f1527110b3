"""The routes that the subnets of a Neutron port give to its NIC."""

from __future__ import annotations

from kata_runtime.address_types import IpAddress, Network
from kata_runtime.errors import GuestError
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.message import NLM_F_CREATE, NLM_F_EXCL
from kata_runtime.netlink.route import add_route, new_route
from kata_runtime.netlink.transport import Family
from kata_runtime.network.request_fields import host_address, network_of
from kata_runtime.network.route_table import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.network.clients.neutron import Port
    from kata_runtime.network.route_table import Table

    # Gateways by destination.
    Routes = Mapping[Network, IpAddress]

_ADD = NLM_F_CREATE | NLM_F_EXCL


def routes_of(port: Port) -> dict[Network, IpAddress]:
    """The routes of all subnets; a subnet's host routes take precedence over its gateway.

    :raise InputError: Neutron gave an invalid address.
    """
    found: dict[Network, IpAddress] = {}
    for _, subnet in port.fixed_ips:
        for destination, hop in subnet.host_routes:
            found.setdefault(network_of(destination, "destination"), host_address(hop, "nexthop"))
        if subnet.gateway:
            gateway = host_address(subnet.gateway, "gateway_ip")
            found.setdefault(Network.default(gateway.family), gateway)
    return found


def add_routes(channel: AgentChannel, name: str, routes: Routes) -> list[str]:
    """Add the routes to destinations without one, through NIC ``name``; returns notes on those left out.

    :raise GuestError: there is no such NIC. :raise KernelError, DeadlineError: the guest refused, or does not answer.
    """
    table = read_table(channel)
    if name not in table.links:
        raise GuestError(f"NIC {name!a} has left the container meanwhile", hint="try again")
    index = table.links[name].index
    missing, notes = _missing(table, routes)
    requests = [add_route(new_route(to, index=index, gateway=hop), _ADD) for to, hop in missing.items()]
    call_each(channel, Family.ROUTE, requests)
    return notes


def missing_routes(channel: AgentChannel, routes: Routes) -> tuple[list[str], list[str]]:
    """The routes that ``add_routes`` would add, such as ``10.1.0.0/16 via 10.0.0.1``, and its notes; only reads.

    :raise GuestError, KernelError, DeadlineError: the guest does not answer properly.
    """
    missing, notes = _missing(read_table(channel), routes)
    return [f"{to} via {hop}" for to, hop in missing.items()], notes


def server_notes(port: Port) -> list[str]:
    """A note on the DNS servers of the port's subnets, if there are any."""
    servers = sorted({server for _, subnet in port.fixed_ips for server in subnet.name_servers})
    return [f"the port's subnets name the DNS servers {', '.join(servers)}"] if servers else []


def _missing(table: Table, routes: Routes) -> tuple[Routes, list[str]]:
    """The routes to destinations without one, and notes on the others."""
    existing = {key.network for key in table.groups()}
    # For example from another port of the same network: the container keeps the route that it has.
    notes = [
        f"the container keeps its {to} route, and gets none by {hop} of the port"
        for to, hop in routes.items()
        if to in existing
    ]
    return {to: hop for to, hop in routes.items() if to not in existing}, notes
