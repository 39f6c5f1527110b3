"""Standard input, output and error of a command, and the file that it is given."""

from __future__ import annotations

import os
import stat

from kata_runtime.errors import HostError, InputError

DEFAULT_LIMIT = 16 * 1024 * 1024  # bytes
_CHUNK = 256 * 1024


class OutputClosedError(Exception):
    """Nobody reads standard output any more."""


class AnswerError(Exception):
    """A command failed for ``reason`` and nevertheless has ``answer`` to print."""

    def __init__(self, reason: BaseException, answer: str) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.answer = answer


def occupy_standard_descriptors() -> None:
    """Keep a socket or file opened later from becoming descriptor 0, 1 or 2 that the caller left closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Opens the lowest free descriptor, and so that reading an input or writing a result from it still fails.
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)


def read_input(path: str, limit: int = DEFAULT_LIMIT) -> bytes:
    """Everything in a file, or in standard input for ``-``.

    :raise InputError: larger than ``limit`` bytes, or a file that was written to meanwhile: it may have been cut off.
    :raise HostError: it cannot be read.
    """
    name = "standard input" if path == "-" else path
    parts: list[bytes] = []
    size = 0
    try:
        descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = os.fstat(descriptor)
            while part := os.read(descriptor, _CHUNK):
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
        raise HostError(f"cannot read {name}: {os.strerror(exc.errno or 0)}", errno=exc.errno or 0) from exc
    except ValueError as exc:
        raise InputError(f"the file name {path!a} holds a NUL character") from exc
    return b"".join(parts)


def write_text(text: str) -> None:
    """Write to standard output, all of it and at once.

    :raise OutputClosedError: nobody reads it.
    :raise HostError: it cannot be written.
    """
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError as exc:
        raise OutputClosedError from exc
    except OSError as exc:
        reason = os.strerror(exc.errno or 0)
        raise HostError(f"cannot write the result to standard output: {reason}", errno=exc.errno or 0) from exc


def write_line(text: str) -> None:
    """Write one line to standard output; raises as write_text."""
    write_text(f"{text}\n")


def tell(message: str) -> None:
    """Write one line for people to standard error; whether it arrives does not matter."""
    line = one_line(f"kata-runtime: {message}")
    try:
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return


def one_line(text: str) -> str:
    """The text with everything escaped that could break the line or command a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text.rstrip("\n"))
