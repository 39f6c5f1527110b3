"""Finds the cause of a failed boot: how QEMU ended, what it printed, and what the guest printed."""

from __future__ import annotations

import os

from kata_runtime.errors import DeadlineError, GuestError, KataError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.sandbox.paths import SandboxPaths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.process import Child

# QEMU closes its sockets some moments before its process ends, and its last output is logged after that.
_END_SECONDS = 2.0
_TAIL_BYTES = 64 * 1024
_CONSOLE_LINES = 20
_LINE_CHARACTERS = 300
_PANIC = "Kernel panic - not syncing"  # kernel/panic.c


class BootError(GuestError):
    """A guest did not boot.

    ``console`` is the guest's last lines, ``printed`` QEMU's; ``timed_out`` is whether QEMU was still running.
    """

    def __init__(
        self, message: str, console: list[str], *, printed: str = "", timed_out: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.console = console
        self.printed = printed
        self.timed_out = timed_out


def boot_error(error: KataError, directory: str, qemu: Child, log: Child, seconds: float) -> BootError:
    """End QEMU, and find the cause of ``error``, which was raised while waiting for the agent."""
    timed_out = isinstance(error, DeadlineError)
    ended = not timed_out and _has_ended(qemu)
    qemu.end()
    with suppress(DeadlineError):
        log.await_end(_END_SECONDS)
    console = _lines(SandboxPaths(directory).console_log)
    printed = _lines(SandboxPaths(directory).qemu_log)
    panic = next((line[line.index(_PANIC) :] for line in console if _PANIC in line), None)
    hint = None
    if timed_out:
        message = f"the guest's agent did not answer within {seconds:g} s of boot"
        if panic:
            message += f": {panic}"
    elif ended:
        reason = panic or (printed[-1] if printed else f"{_ending(qemu.exit_status)}, without a message")
        message = f"QEMU ended before the guest was up: {reason}"
    else:
        message, hint = error.message, error.hint
    return BootError(message, console[-_CONSOLE_LINES:], printed="\n".join(printed), timed_out=timed_out, hint=hint)


def _has_ended(qemu: Child) -> bool:
    try:
        qemu.await_end(_END_SECONDS)
    except DeadlineError:
        return False
    return True


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    from signal import Signals

    return f"killed by {Signals(-status).name}"


def _lines(path: str) -> list[str]:
    """The last non-empty lines of a file with untrusted content, each of bounded length."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line[:_LINE_CHARACTERS] for line in text.splitlines() if line.strip()]
