"""The commands of kata-ipvs on one container."""

from __future__ import annotations

from kata_runtime.errors import KataError, KernelError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.ipvs import batch, rule_limit
from kata_runtime.ipvs.engine import Engine, explain
from kata_runtime.ipvs.guest_setup import ask_number, ask_sysctls, enable
from kata_runtime.ipvs.ipvsadm_grammar import parse
from kata_runtime.ipvs.ipvsadm_options import UnknownOptionError
from kata_runtime.ipvs.model import AddServer, AddService, DeleteServer, DeleteService, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.ipvs.model import Change
    from kata_runtime.sandbox.session import Session


def read_command(words: str) -> Change | Question:
    """What ``--parameters`` asks for; needs no container.

    :raise InputError: it is not in ipvsadm's grammar.
    """
    try:
        return parse(words)
    except UnknownOptionError as error:
        raise error.with_nearest() from error


def is_question(asked: Change | Question) -> bool:
    """Whether the command only reads."""
    return isinstance(asked, Question)


def run_ipvsadm(session: Session, asked: Change | Question, *, output: Callable[[bytes], None], fmt: str) -> None:
    """Carry out one ipvsadm command; its output goes to ``output``, ``fmt`` is ``text`` or ``json``.

    :raise InputError, ConflictError, LimitError: it is not possible with this table.
    :raise KernelError, GuestError: the guest's kernel refused, or the guest failed.
    """
    engine = open_engine(session)
    if isinstance(asked, Question):
        from kata_runtime.ipvs.queries import answer

        for part in answer(engine, asked, fmt, session.container_id):
            output(part)
        return
    _change(session, engine, asked)


def run_restore(
    session: Session, name: str, data: bytes, *, replace: bool, progress: Callable[[int, int], None]
) -> None:
    """Apply a file of rules, whole or not at all; see ``batch.restore``."""
    batch.restore(session, name, data, replace=replace, progress=progress)


def recover(session: Session) -> None:
    """Undo what a killed batch left half-done.

    :raise HostError: the file with the previous table is unreadable. :raise GuestError: the kernel refuses it.
    """
    batch.undo(session, open_engine(session))


def open_engine(session: Session) -> Engine:
    """IPVS of the guest, loaded.

    :raise GuestError: the guest's kernel has none.
    """
    channel = session.channel()
    return Engine(channel, ask_number(channel)())


def _change(session: Session, engine: Engine, change: Change) -> None:
    if isinstance(change, AddService | AddServer):
        rule_limit.admit(engine, 1, session.record.ipvs_rule_limit)
    if session.dry_run:
        from kata_runtime.ipvs.planned_rules import plan_change

        plan_change(engine, change)
    try:
        engine.change(change)
    except KernelError as error:
        raise explain(change, error, session.container_id) from error
    if isinstance(change, AddService | AddServer):
        try:
            channel = session.channel()
            enable(channel, ask_sysctls(channel)())
        except BaseException:
            # The failure that is being handled is the one to report.
            with suppress(KataError):
                engine.change(_opposite(change))
            raise


def _opposite(change: AddService | AddServer) -> Change:
    match change:
        case AddService(spec):
            return DeleteService(spec.key)
        case AddServer(service, spec):
            return DeleteServer(service, spec.key)
