"""Many rules in one go: all of them or none, also when the command is killed half-way.

Before the first rule the table as it is goes to a file beside the record, as rules. Whoever finds that work pending
compares the table with the file and puts back what differs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from kata_runtime.errors import GuestError, HostError, InputError, KataError, LimitError
from kata_runtime.ipvs import save
from kata_runtime.ipvs.engine import Engine, explain, requests
from kata_runtime.ipvs.rules import RulesError, count, difference, outcome, parse_rules
from kata_runtime.netlink.request import attempt_all
from kata_runtime.netlink.transport import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kata_runtime.ipvs.model import Change
    from kata_runtime.ipvs.rules import Table
    from kata_runtime.sandbox.session import Session

KIND = "ipvs"
_FILE = "ipvs-undo.rules"


def restore(
    session: Session,
    engine: Engine,
    name: str,
    data: bytes,
    *,
    replace: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Apply the rules of a file called ``name``; with ``replace`` they become the table, by difference.

    ``progress`` hears how many rules of how many are on their way.

    :raise RulesError: lines are wrong, or contradict each other or the table. :raise LimitError: too many rules.
    :raise KernelError, GuestError: the kernel refused, or the connection broke.
    """
    rules = parse_rules(data, name)
    if replace and not rules:
        # Far more often a file that was cut off than a wish.
        raise InputError(f"{name} holds no rules, and --replace would empty the table", hint="use -C for that")
    before = engine.table()
    after = outcome({} if replace else before, rules, name, data)
    check_limit(session, count(before), count(after))
    changes: Sequence[Change] = difference(before, after) if replace else [rule for _, rule in rules]
    if not changes:
        return
    _write_undo(session.directory / _FILE, before)
    session.save(session.record._replace(pending={"kind": KIND}, ipvs_rules=None))
    try:
        channel = session.channel()
        refused = attempt_all(channel, Family.GENERIC, requests(engine, _counted(changes, progress)))
        for place, error in refused.items():
            raise explain(changes[place], error, session.container_id)
    except BaseException:
        # When this fails, too, the record still names the work and the next command does it.
        with suppress(KataError):
            _put_back(session, engine, before)
            _forget(session, count(before))
        raise
    _forget(session, count(after))


def undo(session: Session, engine: Engine) -> None:
    """Put back the table that a killed batch found.

    :raise HostError: the file with it cannot be read. :raise GuestError: the kernel refuses to take a rule back.
    """
    path = session.directory / _FILE
    try:
        data = path.read_bytes()
        before = outcome({}, parse_rules(data, path.name), path.name, data)
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", errno=error.errno or 0) from error
    except RulesError as error:
        raise HostError(f"{path} is damaged: {error.problems[0]}") from error
    _put_back(session, engine, before)
    _forget(session, count(before))


def check_limit(session: Session, present: int, wanted: int) -> None:
    """Refuse more rules than the container may have; fewer than before are fine in any case.

    :raise LimitError: with the numbers.
    """
    limit = session.record.ipvs_rule_limit
    if wanted > max(limit, present):
        raise LimitError(
            f"the container has {present} of {limit} possible rules, and would have {wanted}",
            limit=limit,
            hint="services and servers both count; ipvs_rule_limit in the configuration raises the limit",
        )


def _put_back(session: Session, engine: Engine, before: Table) -> None:
    changes = difference(engine.table(), before)
    refused = attempt_all(session.channel(), Family.GENERIC, requests(engine, changes))
    for error in refused.values():
        raise GuestError(f"the former virtual servers could not be put back: {error}") from error


def _forget(session: Session, rules: int) -> None:
    session.save(session.record._replace(pending=None, ipvs_rules=rules))
    (session.directory / _FILE).unlink(missing_ok=True)


def _counted(changes: Sequence[Change], progress: Callable[[int, int], None]) -> Iterator[Change]:
    total = len(changes)
    for number, change in enumerate(changes):
        if not number % 256:
            progress(number, total)
        yield change


def _write_undo(path: Path, before: Table) -> None:
    """Write the table so that it is whole on disk before anything changes."""
    temporary = path.with_suffix(".new")
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(opened, "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in _lines(before))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", errno=error.errno or 0) from error


def _lines(table: Table) -> Iterator[str]:
    for key, (wish, servers) in table.items():
        yield save.add_service(wish)
        for server in servers.values():
            yield save.add_server(key, server) + save.thresholds(server)
