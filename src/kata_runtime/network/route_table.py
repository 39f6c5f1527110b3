"""The routing table of a container: reading it, formatting it, and planning the changes to another table."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress, Network
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import addresses_of, dump_addresses
from kata_runtime.netlink.exchange import Request, call_each
from kata_runtime.netlink.link import Link, dump_links, links_of
from kata_runtime.netlink.message import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE
from kata_runtime.netlink.route import (
    RT_TABLE_MAIN,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
    NextHop,
    Route,
    RouteKey,
    add_route,
    delete_route,
    dump_routes,
    routes_of,
)
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kata_runtime.netlink.transport import Transport

# Protocols of routes that the kernel creates: with an address, from a router advertisement, from an ICMP redirect.
_KERNEL_PROTOCOLS = frozenset({RTPROT_REDIRECT, RTPROT_KERNEL, RTPROT_RA})
_HIDDEN_TYPES = frozenset({RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST})
_LINK_LOCAL = Network(IpAddress(b"\xfe\x80" + bytes(14)), 64)

Groups = dict[RouteKey, list[Route]]


class ListedRoute(NamedTuple):
    """A next hop of a route as the user sees it; ``gateway`` is None and ``device`` empty where there is none."""

    dest: Network
    gateway: IpAddress | None
    device: str

    @property
    def texts(self) -> tuple[str, str, str]:
        """The fields as text."""
        return str(self.dest), str(self.gateway or ""), self.device


class Table(NamedTuple):
    """A snapshot, read in one round trip; ``routes`` are the changeable ones, IPv4 before IPv6."""

    links: dict[str, Link]
    addresses: frozenset[IpAddress]
    routes: list[Route]

    def groups(self) -> Groups:
        """The routes by key, in the kernel's order."""
        return group(self.routes)

    def entries(self, route: Route) -> list[ListedRoute]:
        """``route`` in the form that users see, one entry for each next hop."""
        names = {link.index: link.name for link in self.links.values()}
        return list(_entries(route, names))

    def all_entries(self) -> list[ListedRoute]:
        """All visible routes in the form that users see."""
        names = {link.index: link.name for link in self.links.values()}
        return [entry for route in self.routes if is_visible(route) for entry in _entries(route, names)]


class Step(NamedTuple):
    """One change of the table, and the route that it is about."""

    request: Request
    route: Route


def read_table(transport: Transport) -> Table:
    """Read interfaces, the container's own addresses and the main table.

    :raise KernelError, ProtocolError: as ``call_each``.
    """
    asked = [dump_links(), dump_addresses(), dump_routes(AF_INET), dump_routes(AF_INET6)]
    links, addresses, four, six = call_each(transport, Family.ROUTE, asked)
    routes = [*routes_of(four, AF_INET), *routes_of(six, AF_INET6)]
    return Table(
        {link.name: link for link in links_of(links)},
        frozenset(address.value.address for address in addresses_of(addresses)),
        [route for route in routes if _is_changeable(route)],
    )


def read_routes(transport: Transport) -> list[Route]:
    """Read only the changeable routes.

    :raise KernelError, ProtocolError: as ``call_each``.
    """
    four, six = call_each(transport, Family.ROUTE, [dump_routes(AF_INET), dump_routes(AF_INET6)])
    routes = [*routes_of(four, AF_INET), *routes_of(six, AF_INET6)]
    return [route for route in routes if _is_changeable(route)]


def is_visible(route: Route) -> bool:
    """Whether a route is shown to users: in the main table, neither link-local nor multicast."""
    return _is_changeable(route) and not _is_link_local_or_multicast(route.key.network)


def _is_changeable(route: Route) -> bool:
    """Whether commands may delete or replace a route: every visible one, and others that the kernel did not make.

    Without the latter, a route to fe80::/64 or ff05::/16 could be added, but never again deleted.
    """
    if route.table != RT_TABLE_MAIN or route.type in _HIDDEN_TYPES:
        return False
    return not (_is_link_local_or_multicast(route.key.network) and is_kernel_made(route))


def _is_link_local_or_multicast(network: Network) -> bool:
    is_multicast = network.family == AF_INET6 and network.prefix_length >= 8 and network.address.is_multicast
    return is_multicast or network == _LINK_LOCAL


def is_kernel_made(route: Route) -> bool:
    """Whether the kernel created the route itself."""
    return route.protocol in _KERNEL_PROTOCOLS


def group(routes: Iterable[Route]) -> Groups:
    """Group routes by key, keeping their order."""
    groups: Groups = {}
    for route in routes:
        groups.setdefault(route.key, []).append(route)
    return groups


def plan(current: Mapping[RouteKey, Sequence[Route]], wanted: Mapping[RouteKey, Sequence[Route]]) -> list[Step]:
    """The changes that turn ``current`` into ``wanted``, for the keys of ``wanted`` only.

    Routes without a gateway come first, since gateways are reached through them. Deletions without a replacement come
    last, so that a destination that is reachable before and after stays reachable throughout.
    """
    ranked: list[list[Step]] = [[], [], []]
    for key, target in wanted.items():
        rank = 2 if not target else 1 if any(hop.gateway for route in target for hop in route.next_hops) else 0
        ranked[rank] += _plan_group(list(current.get(key, ())), list(target))
    return ranked[0] + ranked[1] + ranked[2]


def _plan_group(current: list[Route], target: list[Route]) -> list[Step]:
    """The changes within one key, of which the kernel uses the first route and keeps the others in order."""
    there = {route.payload for route in current}
    staying = {route.payload for route in target} & there
    leaving = [route for route in current if route.payload not in staying]
    steps: list[Step] = []
    if current and target and not staying:
        # The kernel replaces the first route atomically: no packet is sent without a route.
        steps.append(_add(target[0], NLM_F_REPLACE))
        leaving, target = leaving[1:], target[1:]
        if target and target[0].key.network.family == AF_INET6:
            # IPv6 would merge the new routes with those that are still to be deleted into multipath routes.
            steps += [_delete(route) for route in leaving]
            leaving = []
        steps += [_add(route, NLM_F_APPEND) for route in target]
    else:
        steps += _insert(target, staying)
    return steps + [_delete(route) for route in leaving]


def _insert(target: list[Route], staying: set[bytes]) -> Iterator[Step]:
    """Add the missing routes in order, before the routes that stay, or behind them with NLM_F_APPEND."""
    first = next((place for place, route in enumerate(target) if route.payload in staying), 0)
    if first and target[0].key.network.family == AF_INET:
        # Without NLM_F_APPEND the kernel inserts an IPv4 route before the others of its key.
        for route in reversed(target[:first]):
            yield _add(route, 0)
        target = target[first:]
    appended = False
    for route in target:
        if route.payload not in staying:
            appended = True
            yield _add(route, NLM_F_APPEND)
        elif appended:
            yield _delete(route)
            yield _add(route, NLM_F_APPEND)


def _add(route: Route, flags: int) -> Step:
    return Step(add_route(route, NLM_F_CREATE | flags), route)


def _delete(route: Route) -> Step:
    return Step(delete_route(route), route)


def _entries(route: Route, names: Mapping[int, str]) -> Iterator[ListedRoute]:
    for hop in route.next_hops or (NextHop(None, 0),):
        yield ListedRoute(route.key.network, hop.gateway, names.get(hop.interface, ""))
