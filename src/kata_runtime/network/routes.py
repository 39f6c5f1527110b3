"""Routes of a running container: add, delete, list, replace. Each command is applied completely or not at all."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import Network
from kata_runtime.errors import ConflictError, InputError, KataError, KernelError, OnlyPlannedError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.message import NLM_F_CREATE, NLM_F_EXCL
from kata_runtime.netlink.route import NextHop, Route, RouteKey, add_route, new_route, with_next_hops
from kata_runtime.network.route_journal import apply
from kata_runtime.network.route_table import (
    Groups,
    ListedRoute,
    Step,
    Table,
    group,
    is_kernel_made,
    is_visible,
    plan,
    read_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kata_runtime.address_types import IpAddress
    from kata_runtime.netlink.link import Link
    from kata_runtime.network.requests import RouteRequest
    from kata_runtime.sandbox.session import Session

__all__ = ["ListedRoute", "add_routes", "delete_routes", "list_routes", "update_routes"]


class _ResolvedRoute(NamedTuple):
    """A request with its interface in the container; ``network`` is None for the default routes of both families."""

    request: RouteRequest
    network: Network | None
    link: Link | None

    def describes(self, hop: NextHop) -> bool:
        """Whether gateway and device of the request, where given, are those of ``hop``; ignores the destination."""
        gateway = self.request.gateway
        return (gateway is None or hop.gateway == gateway) and (self.link is None or hop.interface == self.link.index)


def list_routes(session: Session) -> list[ListedRoute]:
    """The main table, IPv4 then IPv6, one entry for each next hop; without link-local and multicast routes.

    :raise KernelError, GuestError, ProtocolError: the guest did not answer properly.
    """
    return read_table(session.channel()).all_entries()


def add_routes(session: Session, requests: Sequence[RouteRequest]) -> None:
    """Add all of ``requests``, in order, or none.

    :raise InputError: a value that the container's network cannot have.
    :raise ConflictError: a route exists already, or a device is down.
    :raise KernelError: the guest's kernel refused for a reason of its own.
    """
    _require_some(requests)
    table = read_table(session.channel())
    groups = table.groups()
    added: dict[RouteKey, _ResolvedRoute] = {}
    steps = []
    for request in requests:
        asked = _resolve(request, table)
        route = _make(asked, table)
        if route.key in groups:
            raise _exists(table.entries(groups[route.key][0])[0])
        if route.key in added:
            raise _second(request)
        added[route.key] = asked
        steps.append(Step(add_route(route, NLM_F_CREATE | NLM_F_EXCL), route))
    _carry_out(session, steps, {key: [] for key in added}, {key: asked.request for key, asked in added.items()})


def delete_routes(session: Session, requests: Sequence[RouteRequest]) -> None:
    """Delete every route that matches the given fields of a request; if a request matches none, nothing is deleted.

    If only some next hops of a multipath route match, only those are deleted.

    :raise InputError: nothing matches, or a device does not exist.
    :raise KernelError: the guest's kernel refused.
    """
    _require_some(requests)
    table = read_table(session.channel())
    groups = table.groups()
    by_network: dict[Network, list[RouteKey]] = {}
    for key in groups:
        by_network.setdefault(key.network, []).append(key)
    wanted: Groups = {}
    for request in requests:
        asked = _resolve(request, table)
        networks = _networks(asked)
        keys = [key for network in networks for key in by_network.get(network, ())]
        matched = False
        for key in keys:
            remaining, hit = _without(wanted.get(key, groups[key]), asked)
            if hit:
                wanted[key] = remaining
                matched = True
        if not matched:
            raise InputError(
                f"no route {describe(request)} in the container", hint="list-routes shows the routes it has"
            )
    before = {key: groups[key] for key in wanted}
    _carry_out(session, plan(groups, wanted), before, {})


def update_routes(session: Session, requests: Sequence[RouteRequest]) -> list[ListedRoute]:
    """Replace all routes that the kernel did not create by ``requests``, or change nothing; returns the resulting list.

    A route that exists already is not touched, one to the same destination is replaced atomically, and deletions come
    last.

    :raise InputError, ConflictError, KernelError: as ``add_routes``.
    """
    table = read_table(session.channel())
    groups = table.groups()
    unmet = _distinct(_resolve(request, table) for request in requests)
    by_network = _by_network(unmet)
    wanted: Groups = {}
    met: set[int] = set()
    for key, routes in groups.items():
        kept = []
        for route in routes:
            matching = _matching(route, by_network.get(key.network, []))
            if matching is not None:
                met.update(id(asked) for asked in matching)
            if matching is not None or is_kernel_made(route):
                kept.append(route)
        wanted[key] = kept
    origin: dict[RouteKey, RouteRequest] = {}
    for asked in unmet:
        if id(asked) in met:
            continue
        route = _make(asked, table)
        there = wanted.get(route.key)
        if there:
            # What the kernel made stays without being in the list.
            raise _exists(table.entries(there[0])[0]) if is_kernel_made(there[0]) else _second(asked.request)
        wanted[route.key] = [route]
        origin[route.key] = asked.request
    changed = {key: target for key, target in wanted.items() if target != groups.get(key, [])}
    before = {key: groups.get(key, []) for key in changed}
    _carry_out(session, plan(groups, changed), before, origin)
    return _resulting(read_table(session.channel()), unmet)


def describe(request: RouteRequest) -> str:
    """A request as messages name it: ``to '10.0.0.0/8' via '172.16.0.1' on 'eth0'``."""
    words = f"to {request.given.dest or 'default'!r}"
    if request.gateway:
        words += f" via {request.given.gateway!r}"
    return f"{words} on {request.device!r}" if request.device else words


def _carry_out(
    session: Session, steps: Sequence[Step], before: Groups, origin: Mapping[RouteKey, RouteRequest]
) -> None:
    """Apply the steps; a refusal is raised as an error about the request that caused it."""
    if session.dry_run:
        raise OnlyPlannedError([f"routes: {step.request.operation}" for step in steps])
    refused = apply(session, [step.request for step in steps], before)
    for place, error in refused.items():
        request = origin.get(steps[place].route.key)
        raise error if request is None else _explain(error, request) from error


def _explain(error: KernelError, request: RouteRequest) -> KataError:
    match error.errno:
        case errno.EEXIST:
            return ConflictError(f"a route {describe(request)} exists already", hint="delete it first")
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return InputError(
                f"gateway {request.given.gateway!r} cannot be reached through device {request.device!r}",
                field="gateway",
                hint="give one in a network of the device, or add a route to it first",
            )
        case errno.ENETDOWN:
            return _down(request)
        case errno.ENODEV:
            return _no_device(request.device)
        case _:
            return KernelError(f"add a route {describe(request)}", error.errno, error.extack)


def _resolve(request: RouteRequest, table: Table) -> _ResolvedRoute:
    """Find the device of a request in the container."""
    link = None
    if request.device:
        link = table.links.get(request.device)
        if link is None:
            raise _no_device(request.device)
    return _ResolvedRoute(request, request.network, link)


def _make(asked: _ResolvedRoute, table: Table) -> Route:
    """The route to add, after checks whose messages are clearer than the kernel's errno."""
    request = asked.request
    if asked.link is None:
        raise InputError(f"the route {describe(request)} has no device", field="device", hint="name one")
    if not asked.link.is_up:
        raise _down(request)
    if asked.network is None:
        raise InputError(f"the route {describe(request)} has no gateway", field="gateway", hint="give one")
    if request.gateway in table.addresses:
        raise InputError(
            f"gateway {request.given.gateway!r} is an address of the container itself",
            field="gateway",
            hint="give the address of a neighbour",
        )
    return new_route(
        asked.network,
        index=asked.link.index,
        gateway=request.gateway,
        source=request.source,
        scope=request.scope,
    )


def _networks(asked: _ResolvedRoute) -> list[Network]:
    return [Network.default(AF_INET), Network.default(AF_INET6)] if asked.network is None else [asked.network]


def _by_network(every: Iterable[_ResolvedRoute]) -> dict[Network, list[_ResolvedRoute]]:
    groups: dict[Network, list[_ResolvedRoute]] = {}
    for asked in every:
        if asked.network is not None:
            groups.setdefault(asked.network, []).append(asked)
    return groups


def _without(routes: Iterable[Route], asked: _ResolvedRoute) -> tuple[list[Route], bool]:
    """``routes`` without the next hops that match, and whether any did."""
    remaining: list[Route] = []
    hit = False
    for route in routes:
        hops = route.next_hops or (NextHop(None, 0),)
        staying = [hop for hop in hops if not asked.describes(hop)]
        hit = hit or len(staying) < len(hops)
        if len(staying) == len(hops):
            remaining.append(route)
        elif staying:
            remaining.append(with_next_hops(route, staying))
    return remaining, hit


def _matching(route: Route, candidates: Sequence[_ResolvedRoute]) -> list[_ResolvedRoute] | None:
    """The requests for the next hops of ``route``, one for each; None when one was not requested."""
    matching = []
    is_ipv6 = route.key.network.family == AF_INET6  # it knows no scopes
    for hop in route.next_hops:
        for asked in candidates:
            request = asked.request
            if (
                asked.link is not None
                and (request.gateway, asked.link.index) == (hop.gateway, hop.interface)
                and (request.source is None or request.source == route.source)
                and (request.scope is None or is_ipv6 or request.scope == route.scope)
            ):
                matching.append(asked)
                break
        else:
            return None
    return matching or None


def _distinct(every: Iterable[_ResolvedRoute]) -> list[_ResolvedRoute]:
    """Check the requests of an update for duplicates; a default route without any address becomes IPv4's."""
    seen: set[tuple[Network, IpAddress | None, int]] = set()
    distinct = []
    for given in every:
        if given.link is None:
            raise InputError(f"the route {describe(given.request)} has no device", field="device", hint="name one")
        network = given.network or Network.default(AF_INET)
        asked = given._replace(network=network)
        identity = (network, given.request.gateway, given.link.index)
        if identity in seen:
            raise InputError(f"the route {describe(asked.request)} is in the list twice", hint="give it once")
        seen.add(identity)
        distinct.append(asked)
    return distinct


def _resulting(table: Table, asked: Sequence[_ResolvedRoute]) -> list[ListedRoute]:
    by_network = _by_network(asked)
    return [
        entry
        for key, routes in group(table.routes).items()
        for route in routes
        if is_visible(route)
        and (not is_kernel_made(route) or _matching(route, by_network.get(key.network, [])) is not None)
        for entry in table.entries(route)
    ]


def _require_some(requests: Sequence[RouteRequest]) -> None:
    if not requests:
        raise InputError("the list of routes is empty", hint="give at least one")


def _second(request: RouteRequest) -> InputError:
    return InputError(f"a route {describe(request)} is in the list twice", field="dest", hint="one route a destination")


def _exists(present: ListedRoute) -> ConflictError:
    dest = str(present.dest)
    via = f" via {str(present.gateway)!r}" if present.gateway else ""
    return ConflictError(
        f"a route to {dest!r} exists already ({dest!r}{via} on {present.device!r})",
        hint="delete it first",
    )


def _down(request: RouteRequest) -> ConflictError:
    return ConflictError(f"device {request.device!r} is down in the container", hint="set it up first")


def _no_device(device: str) -> InputError:
    return InputError(
        f"device {device!r} does not exist in the container",
        field="device",
        hint="list-ifaces shows the NICs it has",
    )
