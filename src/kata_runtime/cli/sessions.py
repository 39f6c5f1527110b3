"""Opens the session of the sandbox that a command is about."""

from __future__ import annotations

from kata_runtime.cli.settings import root_of
from kata_runtime.cli.streams import note
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.recovery import recover_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.sandbox.lock import LockWait
    from kata_runtime.sandbox.session import Session


def session_of(call: Call, subject: str, *, changes: bool = True) -> AbstractContextManager[Session]:
    """Lock the sandbox of the call's first operand, and recover it for a command about ``subject``.

    :raise ContainerError: unknown, ambiguous or not running. :raise DeadlineError: others held its lock too long.
    """
    from kata_runtime.sandbox.session import open_session

    dry_run = call.value("--dry-run") is not None

    def recover(session: Session) -> None:
        if dry_run:
            note("an earlier command was interrupted: its work would be finished or undone first")
        else:
            recover_for(session, subject, note, changes=changes)

    opened = open_session(root_of(call), call.operands[0], recover, lock_wait_of(call), dry_run=dry_run)
    return _counted(call, opened) if changes and not dry_run else opened


@contextmanager
def _counted(call: Call, opened: AbstractContextManager[Session]) -> Iterator[Session]:
    """Count the command for metrics, from when it has the sandbox's lock."""
    from kata_runtime.sandbox.operation_counters import counted
    from kata_runtime.sandbox.paths import SandboxPaths

    operation = "restore" if call.value("--restore") is not None else call.command.words[-1]
    with opened as session, counted(SandboxPaths(f"{session.root}/{session.container_id}").operations, operation):
        yield session


def lock_wait_of(call: Call) -> LockWait:
    """How long the call waits for locks; waits of more than a second are reported on standard error."""
    from kata_runtime.sandbox.lock import DEFAULT_SECONDS, LockWait

    given = call.settings.get("--lock-timeout")
    return LockWait(DEFAULT_SECONDS if given is None else float(given), note)
