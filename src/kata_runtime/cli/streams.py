"""Reading input files and standard input, and writing to standard output and error."""

from __future__ import annotations

import os
import select
import stat

from kata_runtime import fast_signal as signal
from kata_runtime.errors import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

DEFAULT_LIMIT = 16 * 1024 * 1024  # bytes
_CHUNK = 256 * 1024
_VECTORS = 1024  # UIO_MAXIOV (include/uapi/linux/uio.h): as many as writev(2) takes
# A pipe that poll(2) reports as writable takes this much without blocking (PIPE_BUF).
_NOTE_BYTES = 4096


class OutputClosedError(Exception):
    """Standard output was closed by its reader."""


class AnswerError(Exception):
    """A command failed for ``reason``, but has ``answer`` to print."""

    def __init__(self, reason: BaseException, answer: str) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.answer = answer


class AnswerLostError(Exception):
    """A command succeeded, but its answer could not be written for ``reason``; ``outcome`` describes the result."""

    def __init__(self, reason: BaseException, outcome: str) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.outcome = outcome


def occupy_standard_descriptors() -> None:
    """Open placeholders for standard descriptors that the caller closed: no socket or file may get their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open uses the lowest free number. The mode makes reading input from it, or writing a result to it, fail.
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)


def read_input(path: str, limit: int = DEFAULT_LIMIT) -> bytes:
    """Read a whole file, or standard input for ``-``.

    :raise InputError: it is larger than ``limit`` bytes, or was changed meanwhile, and so may be incomplete.
    :raise HostError: it cannot be read.
    """
    name = "standard input" if path == "-" else path
    parts: list[bytes] = []
    size = 0
    try:
        descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = os.fstat(descriptor)
            # A regular file at once: joining its parts takes as much memory again, whose pages cost time.
            while part := os.read(descriptor, max(_CHUNK, min(before.st_size, limit) + 1)):
                size += len(part)
                if size > limit:
                    raise InputError(f"{name} is larger than {limit >> 20} MiB")
                parts.append(part)
            after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) and stat.S_ISREG(
                after.st_mode
            ):
                raise InputError(f"{name} was changed while it was read", hint="try again when it is complete")
        finally:
            if descriptor:
                os.close(descriptor)
    except OSError as exc:
        raise HostError.of(f"cannot read {name}", exc) from exc
    except ValueError as exc:
        raise InputError(f"the file name {path!a} holds a NUL character") from exc
    return b"".join(parts)


def write_text(text: str) -> None:
    """Write everything to standard output. Never call it with a lock held, since it blocks on the reader.

    :raise OutputClosedError: the reader has closed it.
    :raise HostError: it cannot be written.
    """
    write_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """The text as UTF-8; lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace")


def write_bytes(data: bytes | bytearray | memoryview) -> None:
    """Write to standard output; raises as write_text."""
    rest = memoryview(data)
    while rest:
        rest = rest[_written(os.write, rest) :]


def _written(function: Callable[[int, T], int], data: T) -> int:
    try:
        return function(1, data)
    except BrokenPipeError as exc:
        raise OutputClosedError from exc
    except OSError as exc:
        raise HostError.of("cannot write the result to standard output", exc) from exc


def write_parts(parts: Sequence[bytes]) -> None:
    """Write parts one after the other to standard output, without joining them; raises as write_text."""
    for start in range(0, len(parts), _VECTORS):
        some = parts[start : start + _VECTORS]
        written = _written(os.writev, some)
        if written < sum(map(len, some)):
            write_bytes(memoryview(b"".join(some))[written:])


def write_line(text: str) -> None:
    """Write one line to standard output; raises as write_text."""
    write_text(f"{text}\n")


def notify(message: str) -> None:
    """Write a message to standard error, after the work, as it blocks on the reader."""
    try:
        os.write(2, _line(message))
    except OSError:
        return


def note(message: str) -> None:
    """Write a message to standard error during the work, as far as that is possible without blocking."""
    write_note(_line(message))


def write_note(data: bytes) -> None:
    """Write what standard error takes without blocking and drop the rest, since locks may be held."""
    # A terminal can stop background processes that write to it (stty tostop), unless SIGTTOU is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        _write_now(memoryview(data))
    except OSError:
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write_now(data: memoryview) -> None:
    if stat.S_ISCHR(os.fstat(2).st_mode):
        # A terminal with room for one byte can block on a line. O_NONBLOCK on the descriptor itself would affect
        # all processes that share it, such as the shell.
        descriptor = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
        return
    poller = select.poll()
    poller.register(2, select.POLLOUT)
    while data and poller.poll(0):
        data = data[os.write(2, data[:_NOTE_BYTES]) :]


def _line(message: str) -> bytes:
    return encoded(one_line(f"kata-runtime: {message}") + "\n")


def one_line(text: str) -> str:
    """The text with line breaks and control characters escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text.rstrip("\n"))
