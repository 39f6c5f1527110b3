"""Routes of a running container: add, delete, list, replace. Each command is applied completely or not at all."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, inet_pton

from kata_runtime.errors import ConflictError, InputError, KataError, KernelError, OnlyPlannedError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.message import NLM_F_CREATE, NLM_F_EXCL
from kata_runtime.netlink.route import NextHop, Route, RouteKey, add_route, new_route, with_next_hops
from kata_runtime.network.request_fields import network_of
from kata_runtime.network.route_journal import apply
from kata_runtime.network.route_table import (
    Groups,
    ListedRoute,
    Step,
    Table,
    group,
    is_kernel_made,
    plan,
    read_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kata_runtime.netlink.link import Link
    from kata_runtime.network.requests import RouteRequest
    from kata_runtime.sandbox.session import Session

__all__ = ["ListedRoute", "add_routes", "delete_routes", "list_routes", "update_routes"]


class _ResolvedRoute(NamedTuple):
    """A request with packed addresses and its interface; ``family`` 0 is both (a bare "default")."""

    request: RouteRequest
    family: int
    destination: bytes
    prefix_length: int
    gateway: bytes
    source: bytes
    link: Link | None

    def describes(self, hop: NextHop) -> bool:
        """Whether gateway and device of the request, where given, are those of ``hop``; ignores the destination."""
        return (not self.gateway or hop.gateway == self.gateway) and (
            self.link is None or hop.interface == self.link.index
        )


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
            raise InputError(
                f"a route {describe(request)} is in the list twice",
                field="dest",
                hint="one route a destination",
            )
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
    by_network: dict[tuple[int, bytes, int], list[RouteKey]] = {}
    for key in groups:
        by_network.setdefault(key[:3], []).append(key)
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
    by_network: dict[tuple[int, bytes, int], list[_ResolvedRoute]] = {}
    for asked in unmet:
        by_network.setdefault((asked.family, asked.destination, asked.prefix_length), []).append(asked)
    wanted: Groups = {}
    met: set[int] = set()
    for key, routes in groups.items():
        kept = []
        for route in routes:
            matching = _matching(route, by_network.get(key[:3], []))
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
        if wanted.get(route.key):
            raise _exists(table.entries(wanted[route.key][0])[0])
        wanted[route.key] = [route]
        origin[route.key] = asked.request
    changed = {key: target for key, target in wanted.items() if target != groups.get(key, [])}
    before = {key: groups.get(key, []) for key in changed}
    _carry_out(session, plan(groups, changed), before, origin)
    return _resulting(read_table(session.channel()), unmet)


def describe(request: RouteRequest) -> str:
    """A request as messages name it: ``to '10.0.0.0/8' via '172.16.0.1' on 'eth0'``."""
    words = f"to {request.dest or 'default'!r}"
    if request.gateway:
        words += f" via {request.gateway!r}"
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
                f"gateway {request.gateway!r} cannot be reached through device {request.device!r}",
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
    """Pack the addresses of a request, and find its device in the container."""
    gateway = _parse_address(request.gateway, "gateway")
    source = _parse_address(request.source, "source")
    link = None
    if request.device:
        link = table.links.get(request.device)
        if link is None:
            raise _no_device(request.device)
    if request.dest in ("default", ""):
        family = _family(gateway or source)
        destination, length = bytes(16 if family == AF_INET6 else 4), 0
    else:
        destination, length = network_of(request.dest, "dest")
        family = _family(destination)
    for value, field in ((gateway, "gateway"), (source, "source")):
        if value and _family(value) != family:
            raise InputError(
                f"{field} {getattr(request, field)!r} and dest {request.dest!r} are of different families",
                field=field,
                hint=f"give an {'IPv4' if family == AF_INET else 'IPv6'} {field}",
            )
    return _ResolvedRoute(request, family, destination, length, gateway, source, link)


def _make(asked: _ResolvedRoute, table: Table) -> Route:
    """The route to add, after checks whose messages are clearer than the kernel's errno."""
    request = asked.request
    if asked.link is None:
        raise InputError(f"the route {describe(request)} has no device", field="device", hint="name one")
    if not asked.link.is_up:
        raise _down(request)
    if asked.gateway and asked.gateway in table.addresses:
        raise InputError(
            f"gateway {request.gateway!r} is an address of the container itself",
            field="gateway",
            hint="give the address of a neighbour",
        )
    if asked.gateway and not any(asked.gateway):
        raise InputError(f"gateway {request.gateway!r} is no neighbour's address", field="gateway")
    return new_route(
        asked.destination,
        asked.prefix_length,
        index=asked.link.index,
        gateway=asked.gateway,
        source=asked.source,
        scope=request.scope,
    )


def _parse_address(text: str, field: str) -> bytes:
    if not text:
        return b""
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        raise InputError(
            f"{field} {text!r} is no IP address", field=field, hint="such as 172.16.0.1 or fd00::1"
        ) from None


def _family(address: bytes) -> int:
    return {4: AF_INET, 16: AF_INET6}.get(len(address), 0)


def _networks(asked: _ResolvedRoute) -> list[tuple[int, bytes, int]]:
    if asked.family:
        return [(asked.family, asked.destination, asked.prefix_length)]
    return [(AF_INET, bytes(4), 0), (AF_INET6, bytes(16), 0)]


def _without(routes: Iterable[Route], asked: _ResolvedRoute) -> tuple[list[Route], bool]:
    """``routes`` without the next hops that match, and whether any did."""
    remaining: list[Route] = []
    hit = False
    for route in routes:
        hops = route.next_hops or (NextHop(b"", 0),)
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
    for hop in route.next_hops:
        for asked in candidates:
            if (
                asked.link is not None
                and (asked.gateway, asked.link.index) == (hop.gateway, hop.interface)
                and (not asked.source or asked.source == route.source)
                and (asked.request.scope is None or asked.family == AF_INET6 or asked.request.scope == route.scope)
            ):
                matching.append(asked)
                break
        else:
            return None
    return matching or None


def _distinct(every: Iterable[_ResolvedRoute]) -> list[_ResolvedRoute]:
    """Check the requests of an update for duplicates; a default route without any address becomes IPv4's."""
    seen: set[tuple[int, bytes, int, bytes, int]] = set()
    distinct = []
    for given in every:
        if given.link is None:
            raise InputError(f"the route {describe(given.request)} has no device", field="device", hint="name one")
        asked = given._replace(family=given.family or AF_INET)
        identity = (asked.family, asked.destination, asked.prefix_length, asked.gateway, given.link.index)
        if identity in seen:
            raise InputError(f"the route {describe(asked.request)} is in the list twice", hint="give it once")
        seen.add(identity)
        distinct.append(asked)
    return distinct


def _resulting(table: Table, asked: Sequence[_ResolvedRoute]) -> list[ListedRoute]:
    by_network: dict[tuple[int, bytes, int], list[_ResolvedRoute]] = {}
    for one in asked:
        by_network.setdefault((one.family, one.destination, one.prefix_length), []).append(one)
    return [
        entry
        for key, routes in group(table.routes).items()
        for route in routes
        if not is_kernel_made(route) or _matching(route, by_network.get(key[:3], [])) is not None
        for entry in table.entries(route)
    ]


def _require_some(requests: Sequence[RouteRequest]) -> None:
    if not requests:
        raise InputError("the list of routes is empty", hint="give at least one")


def _exists(present: ListedRoute) -> ConflictError:
    via = f" via {present.gateway!r}" if present.gateway else ""
    return ConflictError(
        f"a route to {present.dest!r} exists already ({present.dest!r}{via} on {present.device!r})",
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
