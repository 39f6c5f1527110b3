"""Changes of a routing table, applied completely or not at all, also when the command is killed half-way.

Before the first change, all routes with the keys of the changed ones are written to an undo file. A later command that
finds the work pending in the record restores them.
"""

from __future__ import annotations

from kata_runtime.address_types import IpAddress, Network
from kata_runtime.errors import GuestError, KataError, KernelError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.netlink.exchange import Request, attempt_all
from kata_runtime.netlink.route import Route, RouteKey, unpack_route
from kata_runtime.netlink.transport import Family
from kata_runtime.network.route_table import Groups, group, plan, read_routes
from kata_runtime.sandbox.record import WorkKind
from kata_runtime.sandbox.undo_file import UndoFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from kata_runtime.netlink.transport import Transport
    from kata_runtime.sandbox.session import Session


def apply(session: Session, requests: Sequence[Request], before: Groups) -> dict[int, KernelError]:
    """Apply ``requests``; if the kernel refuses one, restore the routes of the keys of ``before``.

    Returns the refusals by index: if there are none, everything is applied, otherwise nothing has changed.

    :raise GuestError, DeadlineError, ProtocolError: the channel broke; undone now or by the next command.
    """
    channel = session.channel()
    if len(requests) <= 1:
        # The kernel applies a single request completely or not at all: no undo file is needed.
        return attempt_all(channel, Family.ROUTE, requests)
    undo = UndoFile(session, WorkKind.ROUTES)
    try:
        undo.begin(_packed(before))
        refused = attempt_all(channel, Family.ROUTE, requests)
        if refused:
            put_back(channel, before)
    except BaseException:
        # If this fails, too, the work stays pending in the record and the next command restores the routes.
        with suppress(KataError):
            if undo.is_begun:
                put_back(session.channel(), before)
            undo.end()
        raise
    undo.end()
    return refused


def recover(session: Session) -> None:
    """Undo the changes of an interrupted command.

    :raise HostError: the undo file is unreadable.
    :raise GuestError: the kernel refuses to restore a route.
    """
    undo = UndoFile(session, WorkKind.ROUTES)
    put_back(session.channel(), undo.read(unpacked))
    undo.end()


def put_back(transport: Transport, before: Groups) -> None:
    """Restore the routes of the keys of ``before``, in their order.

    :raise GuestError: the kernel refuses one.
    """
    steps = plan(group(read_routes(transport)), before)
    refused = attempt_all(transport, Family.ROUTE, [step.request for step in steps])
    for error in refused.values():
        raise GuestError(f"the previous routes could not be put back: {error}") from error


def _packed(groups: Groups) -> list[object]:
    return [
        [
            key.network.family,
            key.network.address.hex(),
            key.network.prefix_length,
            key.tos,
            key.priority,
            [route.full_payload.hex() for route in routes],
        ]
        for key, routes in groups.items()
    ]


def unpacked(document: Any) -> Groups:
    """The routes of an undo file, by key.

    :raise ValueError, TypeError, KataError: it is damaged.
    """
    groups: Groups = {}
    for _, destination, length, tos, priority, payloads in document:
        key = RouteKey(Network(IpAddress(bytes.fromhex(destination)), length), tos, priority)
        routes: list[Route] = [unpack_route(bytes.fromhex(payload)) for payload in payloads]
        groups[key] = routes
    return groups
