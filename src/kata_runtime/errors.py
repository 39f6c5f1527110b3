"""Every error that a caller of this package can meet.

    KataError
    ├── UsageError        the command line itself is wrong (exit status 2)
    ├── InputError        a value given by the user is wrong
    ├── ContainerError    the container is unknown, ambiguous or not running
    ├── ConflictError     the request contradicts what is there already
    ├── LimitError        a named limit would be exceeded
    ├── HostError         the host's kernel, files or programs refused
    ├── QemuError         QEMU refused a monitor command or ended
    ├── GuestError        the guest or its agent did not do its part
    ├── KernelError       a kernel refused a netlink request
    ├── ProtocolError     a peer sent bytes that break their own format
    └── DeadlineError     something awaited did not happen in time

``str(error)`` is the one line that a user reads.
"""

from __future__ import annotations

import os

# The longest message of a kernel is far shorter; one that a hostile guest made up must not flood a terminal.
_EXTACK_CHARACTERS = 256


class KataError(Exception):
    """Root of the tree: what is wrong, and optionally what would be right."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class OnlyPlannedError(Exception):
    """The end of a dry run, where a command would begin to change something: no failure, and so outside the tree.

    ``steps`` say what it would do, in order; ``notes`` are those that the command itself would print.
    """

    def __init__(self, steps: list[str], notes: list[str] | None = None) -> None:
        super().__init__(steps)
        self.steps = steps
        self.notes = notes or []


class UsageError(KataError):
    """The command line does not follow the grammar."""


class InputError(KataError):
    """A value that the user gave is wrong; ``field`` names it where it has a name."""

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class ContainerError(KataError):
    """There is no running container ``container``."""

    def __init__(self, message: str, *, container: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.container = container


class ConflictError(KataError):
    """The request contradicts something that exists."""


class LimitError(KataError):
    """``limit`` of something would be exceeded."""

    def __init__(self, message: str, *, limit: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class HostError(KataError):
    """The host refused; ``errno`` is 0 where no system call was involved."""

    def __init__(self, message: str, *, errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno

    @classmethod
    def of(cls, what: str, error: OSError, *, hint: str | None = None) -> HostError:
        """The error of a system call in a user's words: ``what``, such as "cannot open x", and the reason."""
        reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        return cls(f"{what}: {reason}", errno=error.errno or 0, hint=hint)


class QemuError(KataError):
    """QEMU refused ``command`` (QAPI error class ``error_class``), or is gone."""

    def __init__(self, message: str, *, command: str = "", error_class: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.command = command
        self.error_class = error_class


class GuestError(KataError):
    """The guest or its agent failed, or the connection to it broke."""


class KernelError(KataError):
    """A netlink request ended in ``errno``; ``extack`` is the kernel's message, often empty.

    ``operation`` describes the request (netlink(7), NLMSG_ERROR).
    """

    def __init__(self, operation: str, errno: int, extack: str = "", *, hint: str | None = None) -> None:
        # strerror(3) takes a C int.
        reason = os.strerror(errno) if abs(errno) < 1 << 31 else f"error {errno}"
        if extack:
            reason = f"{reason} ({extack[:_EXTACK_CHARACTERS]})"
        super().__init__(f"{operation}: {reason}", hint=hint)
        self.operation = operation
        self.errno = errno
        self.extack = extack


class ProtocolError(KataError):
    """A peer broke the format of what it sends."""


class DeadlineError(KataError):
    """``awaited`` did not happen within ``seconds``."""

    def __init__(self, awaited: str, seconds: float, *, hint: str | None = None) -> None:
        super().__init__(f"{awaited} did not happen within {seconds:g} s", hint=hint)
        self.awaited = awaited
        self.seconds = seconds
