"""Apply many rules at once: all of them or none, also when the command is killed half-way.

Before the first rule is sent, a snapshot of the services that will change is written beside the record. The next
command that finds the work pending compares the table with the snapshot and restores what differs.
"""

from __future__ import annotations

import errno
from itertools import chain, islice

from kata_runtime.errors import GuestError, InputError, KataError, OnlyPlannedError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.ipvs import rule_limit
from kata_runtime.ipvs.batch_journal import Snapshot, packed, unpacked
from kata_runtime.ipvs.engine import Engine, explain
from kata_runtime.ipvs.guest_setup import ask_number, ask_sysctls, enable
from kata_runtime.ipvs.model import AddServer, AddService, DeleteServer, DeleteService
from kata_runtime.ipvs.rules import count, difference, outcome, parse_rules, service_of, touched
from kata_runtime.netlink.exchange import attempt_all
from kata_runtime.netlink.transport import Family
from kata_runtime.sandbox.record import WorkKind
from kata_runtime.sandbox.undo_file import UndoFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kata_runtime.errors import KernelError
    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.ipvs.model import Rule
    from kata_runtime.ipvs.rule_list import Rules
    from kata_runtime.ipvs.rules import Batch
    from kata_runtime.sandbox.session import Session

_PROGRESS_RULES = 256


class _Asked:
    """What the guest answers while the rules are parsed, in the order of the requests."""

    def __init__(self, channel: AgentChannel) -> None:
        self._channel = channel
        self._take_number = ask_number(channel)

    def ask(self) -> None:
        """Take the family's number, which an idle guest needs some ms for, and ask for the rest.

        :raise GuestError: the guest's kernel has no IPVS.
        """
        self.engine = Engine(self._channel, self._take_number())
        self.sysctls = ask_sysctls(self._channel)
        self.heads = self.engine.ask_heads(statistics=False)


def restore(
    session: Session,
    name: str,
    data: bytes,
    *,
    replace: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Apply the rules of a file called ``name``; with ``replace`` they become the table, by difference.

    ``progress`` is called with the number of rules sent so far and their total.

    :raise RulesError: lines are wrong, contradict each other or the table, or are refused by the kernel.
    :raise LimitError: too many rules. :raise GuestError: the connection broke.
    """
    asked = _Asked(session.channel())
    batch = parse_rules(data, name, asked.ask)
    if replace and not batch.rules:
        # Far more often a truncated file than an intention.
        raise InputError(f"{name} holds no rules, and --replace would empty the table", hint="use -C for that")
    named = batch.services()
    engine, sysctls, heads = asked.engine, asked.sysctls(), asked.heads()
    before = engine.table(None if replace else named, heads)
    after = outcome({} if replace else before, batch)
    most = session.record.ipvs_rule_limit
    if replace:
        rule_limit.check(count(before), count(after), most)
    else:
        rule_limit.admit(engine, count(after) - count(before), most, heads)
    changes = difference(before, after) if replace else batch.rules
    if session.dry_run:
        from kata_runtime.ipvs.planned_rules import step

        raise OnlyPlannedError([step(change) for change in changes])
    if not changes:
        return
    keys = touched(changes) if replace else named
    previous = Snapshot(frozenset(keys), {key: before[key] for key in keys if key in before})
    _apply(session, engine, batch, changes, previous, sysctls, progress)


def undo(session: Session, engine: Engine) -> None:
    """Restore the snapshot that a killed batch took.

    :raise HostError: the file with it cannot be read. :raise GuestError: the kernel refuses to take a rule back.
    """
    undo_file = UndoFile(session, WorkKind.IPVS)
    _put_back(session, engine, undo_file.read(unpacked))
    undo_file.end()


def _apply(
    session: Session,
    engine: Engine,
    batch: Batch,
    changes: Rules,
    previous: Snapshot,
    sysctls: Sequence[str | KernelError],
    progress: Callable[[int, int], None],
) -> None:
    """Send ``changes``, then set the sysctls, whose values are ``sysctls``; if that fails, put ``previous`` back."""
    undo_file = UndoFile(session, WorkKind.IPVS)
    try:
        undo_file.begin(packed(previous))
        asked = engine.requests(_counted(changes, progress))
        refused = attempt_all(session.channel(), Family.GENERIC, asked, until_failure=True)
        if refused:
            sent = list(changes)
            previous = _with_others(engine, previous, sent, refused)
            undo_file.replace(packed(previous))
            _refuse(session, batch, sent, refused, are_of_file=changes is batch.rules)
        enable(session.channel(), sysctls)
    except BaseException as failure:
        if not undo_file.is_begun:
            with suppress(KataError):
                undo_file.end()
            raise
        try:
            _put_back(session, engine, previous)
            undo_file.end()
        except KataError as error:
            if isinstance(failure, KataError):
                # The work stays pending in the record.
                raise GuestError(f"{failure}, but: {error}", hint="the next command tries again") from failure
        raise
    undo_file.end()


def _refuse(
    session: Session, batch: Batch, changes: Sequence[Rule], refused: Mapping[int, KernelError], *, are_of_file: bool
) -> None:
    """Report the first line that the kernel refused; later refusals may be its consequences.

    :raise RulesError: in terms of the file. :raise KataError: it is a deletion of which the file says nothing.
    """
    place = min(refused)
    change = changes[place]
    reason = explain(change, refused[place], session.container_id)
    if are_of_file:
        batch.refuse([(place, str(reason))])
    if not isinstance(change, DeleteService | DeleteServer):
        for line, rule in enumerate(batch.rules):
            is_cause = isinstance(rule, AddService | AddServer) and rule.spec == change.spec
            if is_cause and service_of(rule) == service_of(change):
                batch.refuse([(line, str(reason))])
    raise reason


def _with_others(
    engine: Engine, previous: Snapshot, changes: Sequence[Rule], refused: Mapping[int, KernelError]
) -> Snapshot:
    """``previous`` with what somebody in the container added meanwhile: it is not ours to take away again."""
    foreign = [changes[place] for place, error in refused.items() if error.errno == errno.EEXIST]
    current = engine.table(touched(foreign)) if foreign else {}
    table = dict(previous.table)
    for key, (spec, servers) in current.items():
        ours = {
            change.spec.key
            for place, change in enumerate(changes)
            if place not in refused and isinstance(change, AddServer) and change.service == key
        }
        kept = {server: made for server, made in servers.items() if server not in ours}
        if key not in table:
            table[key] = (spec, kept)
            continue
        theirs = {change.spec.key for change in foreign if isinstance(change, AddServer) and change.service == key}
        table[key] = (table[key][0], table[key][1] | {server: kept[server] for server in theirs & kept.keys()})
    return previous._replace(table=table)


def _put_back(session: Session, engine: Engine, previous: Snapshot) -> None:
    changes = difference(engine.table(previous.keys), previous.table)
    refused = attempt_all(session.channel(), Family.GENERIC, engine.requests(changes))
    for error in refused.values():
        raise GuestError(f"the previous virtual servers could not be put back: {error}") from error


def _counted(changes: Rules, progress: Callable[[int, int], None]) -> Iterator[Rule]:
    return chain.from_iterable(_parts(changes, progress))


def _parts(changes: Rules, progress: Callable[[int, int], None]) -> Iterator[Iterable[Rule]]:
    rules = iter(changes)
    for number in range(0, len(changes), _PROGRESS_RULES):
        progress(number, len(changes))
        yield islice(rules, _PROGRESS_RULES)
