"""Holds a result, which is written to standard output after locks are released."""

from __future__ import annotations

from kata_runtime.cli.streams import write_bytes, write_parts
from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import BinaryIO, Self

# 200,000 rules take 13 MB. A file of that size, and the modules that make it, take a twentieth of the command's time.
_MEMORY_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1024 * 1024


class Spool:
    """Its parts are in memory, and above ``_MEMORY_BYTES`` in an unnamed temporary file.

    In memory they are not joined: new pages for 13 MB take longer than to write 10,000 parts.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._end: ExitStack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._end is not None:
            self._end.close()

    def add(self, part: bytes) -> None:
        """Append a part.

        :raise HostError: there is no room for it.
        """
        self._held.append(part)
        self._size += len(part)
        if self._size > _MEMORY_BYTES:
            self._move_to_file()

    def write_out(self) -> None:
        """Write everything to standard output; raises as streams.write_text."""
        if self._file is not None:
            self._file.seek(0)
            while part := self._file.read(_READ_BYTES):
                write_bytes(part)
        write_parts(self._held)

    def _move_to_file(self) -> None:
        from contextlib import ExitStack
        from tempfile import TemporaryFile  # imported here: it loads slowly, and few results are so large

        try:
            if self._file is None:
                with ExitStack() as opened:
                    self._file = opened.enter_context(TemporaryFile(buffering=0))
                    self._end = opened.pop_all()
            rest = memoryview(b"".join(self._held))
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            hint = "make room where TMPDIR points to, or in /tmp"
            raise HostError.of("cannot keep the result", error, hint=hint) from error
        self._held, self._size = [], 0
