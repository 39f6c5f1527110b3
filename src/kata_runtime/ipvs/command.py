"""The commands of kata-ipvs on one container."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from kata_runtime.errors import GuestError, HostError, KernelError
from kata_runtime.ipvs import batch, listing, save
from kata_runtime.ipvs.conntrack import delete_matching, parse_filter
from kata_runtime.ipvs.engine import Engine, explain
from kata_runtime.ipvs.grammar import parse
from kata_runtime.ipvs.guest_setup import prepare
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    Clear,
    DeleteServer,
    DeleteService,
    ListConnections,
    ListDaemons,
    ListTable,
    ListTimeouts,
    Save,
    View,
    Zero,
)
from kata_runtime.ipvs.rules import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kata_runtime.ipvs.model import Change, Connection, Question, Service, ServiceKey
    from kata_runtime.sandbox.session import Session

# The count of rules is kept, not read, while the limit is this far away: the guest's own ipvsadm may have changed
# the table, too.
_TRUSTED_SHARE = 0.9


def read_command(words: str) -> Change | Question:
    """What ``--parameters`` asks for; needs no container.

    :raise InputError: it is not in ipvsadm's grammar.
    """
    return parse(words)


def run_ipvsadm(session: Session, asked: Change | Question, *, output: Callable[[str], None], fmt: str) -> None:
    """Do one ipvsadm command; ``output`` takes what it prints, ``fmt`` is ``text`` or ``json``.

    :raise InputError, ConflictError, LimitError: it is not possible with this table.
    :raise KernelError, GuestError: the guest's kernel refused, or the guest failed.
    """
    engine = open_engine(session)
    if isinstance(asked, ListTable | ListConnections | ListTimeouts | ListDaemons | Save):
        for text in _answer(session, engine, asked, fmt):
            output(text)
        return
    _change(session, engine, asked)


def run_restore(
    session: Session, name: str, data: bytes, *, replace: bool, progress: Callable[[int, int], None]
) -> None:
    """Apply a file of rules, whole or not at all; see ``batch.restore``."""
    batch.restore(session, open_engine(session), name, data, replace=replace, progress=progress)


def run_cleanup(session: Session, words: str) -> int:
    """Delete tracked connections; how many.

    :raise InputError: the words are wrong. :raise KernelError: the kernel refused.
    """
    which = parse_filter(words)
    return delete_matching(session.channel(), which)


def recover(session: Session, pending: Mapping[str, object]) -> None:
    """Undo what a killed batch left half-done.

    :raise HostError: the work is not this module's, or the file with the former table is unreadable.
    """
    if pending.get("kind") != batch.KIND:
        raise HostError(f"unfinished work of the kind {pending.get('kind')!a} is none of ipvs")
    batch.undo(session, open_engine(session))


def open_engine(session: Session) -> Engine:
    """IPVS of the guest, loaded and set up.

    :raise GuestError: the guest's kernel has none.
    """
    channel = session.channel()
    return Engine(channel, prepare(channel))


def _change(session: Session, engine: Engine, change: Change) -> None:
    delta = _delta(session, engine, change)
    try:
        engine.change(change)
    except KernelError as error:
        raise explain(change, error, session.container_id) from error
    known = session.record.ipvs_rules
    if isinstance(change, Clear):
        session.save(session.record._replace(ipvs_rules=0))
    elif delta and known is not None:
        session.save(session.record._replace(ipvs_rules=max(known + delta, 0)))


def _delta(session: Session, engine: Engine, change: Change) -> int:
    """By how much the number of rules changes; an addition beyond the limit is refused."""
    match change:
        case AddService() | AddServer():
            known, limit = session.record.ipvs_rules, session.record.ipvs_rule_limit
            if known is None or known >= limit * _TRUSTED_SHARE:
                known = count(engine.table())
                session.save(session.record._replace(ipvs_rules=known))
            batch.check_limit(session, known, known + 1)
            return 1
        case DeleteServer():
            return -1
        case DeleteService(key):
            try:
                return -1 - len(engine.service(key).servers)
            except KernelError as error:
                raise explain(change, error, session.container_id) from error
        case _:
            return 0


def _answer(session: Session, engine: Engine, question: Question, fmt: str) -> Iterable[str]:
    if fmt == "json":
        from kata_runtime.ipvs.document import render

        return [render(session, engine, question)]
    match question:
        case ListTable(key, view, exact, is_sorted):
            counted = view in (View.STATISTICS, View.RATES)
            services = engine.services(statistics=counted) if key is None else [_service(session, engine, key)]
            shown = listing.in_order(services) if is_sorted else services
            head = [] if key is not None else [listing.title(*engine.info())]
            return chain(head, listing.table(shown, view, exact=exact))
        case ListConnections(with_engine):
            return listing.connections(connections(session), with_engine=with_engine)
        case ListTimeouts():
            return [listing.timeouts(engine.timeouts())]
        case ListDaemons():
            return [listing.daemons(engine.daemons())]
        case Save():
            return save.rules(listing.in_order(engine.services(statistics=False)))


def _service(session: Session, engine: Engine, key: ServiceKey) -> Service:
    try:
        return engine.service(key)
    except KernelError as error:
        raise explain(Zero(key), error, session.container_id) from error


def connections(session: Session) -> list[Connection]:
    """The connections that the guest balances.

    :raise GuestError: the guest does not tell. :raise ProtocolError: it tells something else.
    """
    from kata_runtime.ipvs.connections import PATH, parse_connections

    done = session.channel().run(["cat", PATH])
    if done.exit_status:
        raise GuestError(f"cannot read {PATH} in the container: {done.stderr.decode(errors='replace').strip()}")
    return parse_connections(done.stdout.decode("ascii", "replace"))
