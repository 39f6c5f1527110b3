"""All or nothing for changes of a routing table, also when the command is killed half-way.

Before the first change the routes that share a key with it are written to a file beside the record; whoever
finds that work pending in the record puts them back.
"""

from __future__ import annotations

import json

from kata_runtime.errors import GuestError, HostError, KataError, KernelError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.netlink.exchange import Request, attempt_all
from kata_runtime.netlink.route import Route, RouteKey, unpack_route
from kata_runtime.netlink.transport import Family
from kata_runtime.network.route_table import Groups, group, plan, read_routes
from kata_runtime.sandbox.files import replace_durably
from kata_runtime.sandbox.pending import begun, ended
from kata_runtime.sandbox.process import held_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kata_runtime.netlink.transport import Transport
    from kata_runtime.sandbox.session import Session

KIND = "routes"
_WORK = {"kind": KIND}
_FILE = "routes-undo.json"


def apply(session: Session, requests: Sequence[Request], before: Groups) -> dict[int, KernelError]:
    """Carry out ``requests``; on any refusal put the routes of the keys of ``before`` back.

    The refusals by index: none means that all is done, one that nothing has changed.

    :raise GuestError, DeadlineError, ProtocolError: the channel broke; undone now or by the next command.
    """
    channel = session.channel()
    if len(requests) <= 1:
        # The kernel does a single request whole or not at all: there is nothing to undo.
        return attempt_all(channel, Family.ROUTE, requests)
    try:
        _write_undo(session.directory / _FILE, before)
        session.save(begun(session.record, _WORK))
        refused = attempt_all(channel, Family.ROUTE, requests)
        if refused:
            put_back(channel, before)
    except BaseException:
        # When this fails, too, the record still names the work and the next command does it.
        with suppress(KataError):
            if _WORK in session.record.pending:
                put_back(session.channel(), before)
            _forget(session)
        raise
    _forget(session)
    return refused


def recover(session: Session, pending: Mapping[str, object]) -> None:
    """Undo what a killed command left half-done.

    :raise HostError: the work is not this module's, or the file with the previous routes is unreadable.
    :raise GuestError: the kernel refuses to take a previous route back.
    """
    if pending.get("kind") != KIND:
        raise HostError(f"unfinished work of the kind {pending.get('kind')!a} is none of routes")
    put_back(session.channel(), _read_undo(session.directory / _FILE))
    _forget(session)


def put_back(transport: Transport, before: Groups) -> None:
    """Make the routes of the keys of ``before`` what they were, in their order.

    :raise GuestError: the kernel refuses one.
    """
    steps = plan(group(read_routes(transport)), before)
    refused = attempt_all(transport, Family.ROUTE, [step.request for step in steps])
    for error in refused.values():
        raise GuestError(f"the previous routes could not be put back: {error}") from error


def _forget(session: Session) -> None:
    with held_signals():
        # Also when the record in memory names no work: the one on disk may, after a failure of the last moment.
        session.save(ended(session.record, _WORK))
        with suppress(OSError):
            # A file that no record asks for does no harm, and the next change replaces it.
            (session.directory / _FILE).unlink()


def _write_undo(path: Path, before: Groups) -> None:
    """Write the previous routes so that they are whole on disk before anything changes."""
    document = [
        [key.family, key.destination.hex(), *key[2:], [route.full_payload.hex() for route in routes]]
        for key, routes in before.items()
    ]
    content = json.dumps(document, separators=(",", ":")).encode("ascii")
    try:
        replace_durably(str(path), content)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", errno=error.errno or 0) from error


def _read_undo(path: Path) -> Groups:
    before: Groups = {}
    try:
        for family, destination, length, tos, priority, payloads in json.loads(path.read_text(encoding="ascii")):
            key = RouteKey(family, bytes.fromhex(destination), length, tos, priority)
            routes: list[Route] = [unpack_route(bytes.fromhex(payload)) for payload in payloads]
            before[key] = routes
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", errno=error.errno or 0) from error
    except (ValueError, TypeError, RecursionError, KataError) as error:
        raise HostError(f"{path} is damaged: {error}") from error
    return before
