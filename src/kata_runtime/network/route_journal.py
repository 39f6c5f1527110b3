"""All or nothing for changes of a routing table, also when the command is killed half-way.

Before the first change the routes that share a key with it are written to an undo file; whoever finds that work
pending in the record puts them back.
"""

from __future__ import annotations

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
    """Carry out ``requests``; on any refusal put the routes of the keys of ``before`` back.

    The refusals by index: none means that all is done, one that nothing has changed.

    :raise GuestError, DeadlineError, ProtocolError: the channel broke; undone now or by the next command.
    """
    channel = session.channel()
    if len(requests) <= 1:
        # The kernel does a single request whole or not at all: there is nothing to undo.
        return attempt_all(channel, Family.ROUTE, requests)
    undo = UndoFile(session, WorkKind.ROUTES)
    try:
        undo.begin(_packed(before))
        refused = attempt_all(channel, Family.ROUTE, requests)
        if refused:
            put_back(channel, before)
    except BaseException:
        # When this fails, too, the record still names the work and the next command does it.
        with suppress(KataError):
            if undo.is_begun:
                put_back(session.channel(), before)
            undo.end()
        raise
    undo.end()
    return refused


def recover(session: Session) -> None:
    """Undo what a killed command left half-done.

    :raise HostError: the file with the previous routes is unreadable.
    :raise GuestError: the kernel refuses to take a previous route back.
    """
    undo = UndoFile(session, WorkKind.ROUTES)
    put_back(session.channel(), undo.read(unpacked))
    undo.end()


def put_back(transport: Transport, before: Groups) -> None:
    """Make the routes of the keys of ``before`` what they were, in their order.

    :raise GuestError: the kernel refuses one.
    """
    steps = plan(group(read_routes(transport)), before)
    refused = attempt_all(transport, Family.ROUTE, [step.request for step in steps])
    for error in refused.values():
        raise GuestError(f"the previous routes could not be put back: {error}") from error


def _packed(groups: Groups) -> list[object]:
    return [
        [key.family, key.destination.hex(), *key[2:], [route.full_payload.hex() for route in routes]]
        for key, routes in groups.items()
    ]


def unpacked(document: Any) -> Groups:
    """The routes of an undo file, by key.

    :raise ValueError, TypeError, KataError: it is damaged.
    """
    groups: Groups = {}
    for family, destination, length, tos, priority, payloads in document:
        key = RouteKey(family, bytes.fromhex(destination), length, tos, priority)
        routes: list[Route] = [unpack_route(bytes.fromhex(payload)) for payload in payloads]
        groups[key] = routes
    return groups
