"""The contents of a network namespace as lines of text ("facts"), in the same form for host and guest.

    mtu eth0 1500
    mac eth0 02:42:20:6e:03:01
    state eth0 up
    address eth0 02180000...     as in netlink.portable, hexadecimal
    neighbour eth0 0a580001...   address and hardware address, hexadecimal
    route eth0/eth1 0200...      as in netlink.portable, each next hop's interface being its place in the list

Facts are compared as text, stored in the record as text, and translated to requests to the guest's kernel.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress, MacAddress
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import dump_addresses, unpack_address
from kata_runtime.netlink.carried_config import (
    PortableAddress,
    add_portable_address,
    delete_portable_address,
    portable_addresses,
    portable_route,
)
from kata_runtime.netlink.exchange import Request, call_each
from kata_runtime.netlink.link import Link, dump_links, links_of, set_link
from kata_runtime.netlink.neighbour import add_neighbour, delete_neighbour, dump_neighbours, neighbours_of
from kata_runtime.netlink.route import (
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
    Route,
    dump_routes,
    routes_of,
    unpack_route,
    with_next_hops,
)
from kata_runtime.netlink.transport import Family
from kata_runtime.network.route_table import is_visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from kata_runtime.netlink.message import Message
    from kata_runtime.netlink.transport import Transport

_MAC_BYTES = 6


class Holdings(NamedTuple):
    """A snapshot of a kernel's interfaces, addresses, routes and neighbours."""

    links: list[Link]
    addresses: list[Message]
    routes: list[Route]
    neighbours: list[Message]

    def configured(self) -> set[int]:
        """The indexes of interfaces with an address that is not an automatic one."""
        return {found.interface for found in self._portable() if not found.is_automatic}

    def _portable(self) -> list[PortableAddress]:
        return portable_addresses(self.addresses, {link.index: link.mac for link in self.links})

    def facts(self, names: Mapping[int, str]) -> list[str]:
        """The facts about the interfaces in ``names`` (index to name); for lo only routes."""
        found = [fact for link in self.links if link.index in names for fact in _link_facts(link, names[link.index])]
        own = {link.index: names[link.index] for link in self.links if link.index in names and not link.is_loopback}
        found += [
            f"address {own[address.interface]} {address.payload.hex()}"
            for address in self._portable()
            if address.interface in own and not address.is_automatic
        ]
        found += [
            f"neighbour {own[near.interface]} {(near.mac + near.address).hex()}"
            for near in neighbours_of(self.neighbours)
            if near.interface in own and near.is_permanent and near.mac.is_ethernet
        ]
        down = {link.index for link in self.links if not link.is_up}
        return found + [fact for fact in (_route_fact(route, names, down) for route in self.routes) if fact]


def read_holdings(transport: Transport) -> Holdings:
    """Read a snapshot in one round trip.

    :raise KernelError, ProtocolError: as ``call_each``.
    """
    asked = [dump_links(), dump_addresses(), dump_routes(AF_INET), dump_routes(AF_INET6), dump_neighbours()]
    links, addresses, four, six, neighbours = call_each(transport, Family.ROUTE, asked)
    routes = [*routes_of(four, AF_INET), *routes_of(six, AF_INET6)]
    return Holdings(links_of(links), addresses, [route for route in routes if is_visible(route)], neighbours)


def kind_of(fact: str) -> str:
    """The kind of a fact: its first word, such as ``route``."""
    return fact.partition(" ")[0]


def names_in(fact: str) -> list[str]:
    """The names of the interfaces in a fact."""
    return fact.split(" ")[1].split("/")


def addition(fact: str, indexes: Mapping[str, int]) -> Request:
    """The request that makes a fact true, unless it is a route; ``indexes`` are the interfaces of that kernel.

    :raise KeyError: it has no such interface.
    """
    kind, name, value = fact.split(" ")
    index = indexes[name]
    match kind:
        case "mtu":
            return set_link(index, mtu=int(value))
        case "mac":
            return set_link(index, mac=mac_of(value))
        case "state":
            return set_link(index, up=value == "up")
        case "address":
            return add_portable_address(bytes.fromhex(value), index)
        case _:
            mac, address = _neighbour(value)
            return add_neighbour(index, address, mac)


def removal(fact: str, indexes: Mapping[str, int]) -> Request:
    """The request that deletes the address or neighbour of a fact.

    :raise KeyError: as ``addition``.
    """
    kind, name, value = fact.split(" ")
    if kind == "address":
        return delete_portable_address(bytes.fromhex(value), indexes[name])
    return delete_neighbour(indexes[name], _neighbour(value)[1])


def route_in(fact: str, indexes: Mapping[str, int]) -> Route:
    """The route of a fact, with the indexes of the kernel that gets it.

    :raise KeyError: as ``addition``.
    """
    places = {place: indexes[name] for place, name in enumerate(names_in(fact), 1) if name}
    return portable_route(unpack_route(bytes.fromhex(fact.split(" ")[2])), places)


def describe(fact: str) -> str:
    """A fact in readable form: ``route 10.0.0.0/8 via 10.1.0.1 of eth0``."""
    kind, names, value = fact.split(" ")
    match kind:
        case "address":
            value = str(unpack_address(bytes.fromhex(value)).value)
        case "neighbour":
            mac, address = _neighbour(value)
            value = f"{address} at {mac}"
        case "route":
            route = unpack_route(bytes.fromhex(value))
            gateways = [f" via {hop.gateway}" for hop in route.next_hops if hop.gateway]
            value = f"{route.key.network}{''.join(gateways)}"
    return f"{kind} {value} of {names or 'no interface'}"


def mac_of(value: str) -> MacAddress:
    """The hardware address in a fact of the kind ``mac``; empty if it is not Ethernet's."""
    return MacAddress.parse(value) or MacAddress()


def _neighbour(value: str) -> tuple[MacAddress, IpAddress]:
    packed = bytes.fromhex(value)
    return MacAddress(packed[:_MAC_BYTES]), IpAddress(packed[_MAC_BYTES:])


def _link_facts(link: Link, name: str) -> Iterator[str]:
    if link.is_loopback:
        return
    yield f"mtu {name} {link.mtu}"
    yield f"mac {name} {link.mac}"
    yield f"state {name} {'up' if link.is_up else 'down'}"


def _route_fact(route: Route, names: Mapping[int, str], down: AbstractSet[int]) -> str:
    """The fact of a route; empty if it is not mirrored: through other interfaces, or learned from advertisements."""
    if route.protocol in (RTPROT_RA, RTPROT_REDIRECT):
        return ""
    # The kernel keeps a next hop through an interface that was set down, but refuses to add one.
    alive = [hop for hop in route.next_hops if hop.interface not in down]
    if 0 < len(alive) < len(route.next_hops):
        route = with_next_hops(route, alive)
    hops = [hop.interface for hop in route.next_hops]
    if any(hop not in names for hop in hops):
        return ""
    through = [names[hop] for hop in hops]
    if set(through) == {"lo"} and route.protocol == RTPROT_KERNEL:
        return ""
    # Next hops are compared in order when routes are replaced, and so must have one order on host and guest.
    places = {hop: hops.index(hop) + 1 for hop in hops}
    return f"route {'/'.join(through)} {portable_route(route, places).payload.hex()}"
