"""Undo files: the snapshot to which pending work is undone.

It is not in the record, since it can be megabytes and every command reads the record.
"""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime.errors import HostError, KataError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.sandbox.files import replace_whole
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.pending import begun, ended
from kata_runtime.sandbox.process import held_signals
from kata_runtime.sandbox.record import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from kata_runtime.sandbox.record import WorkKind
    from kata_runtime.sandbox.session import Session

    T = TypeVar("T")


class UndoFile:
    """The undo file of one kind of work: written before the record names the work, removed afterwards."""

    def __init__(self, session: Session, kind: WorkKind) -> None:
        self._session = session
        self._work = Work(kind)
        self._path = SandboxPaths(session.directory).undo_file(kind)

    @property
    def is_begun(self) -> bool:
        """Whether the work is pending in the record."""
        return self._work in self._session.record.pending

    def begin(self, document: object) -> None:
        """Write ``document``, a JSON value, and add the work to the record.

        :raise HostError: the file system refused.
        """
        self.replace(document)
        self._session.save(begun(self._session.record, self._work))

    def replace(self, document: object) -> None:
        """Replace the document atomically.

        :raise HostError: the file system refused.
        """
        content = fast_json.dumps(document).encode("ascii")
        try:
            replace_whole(self._path, content)
        except OSError as error:
            raise HostError.of(f"cannot write {self._path}", error) from error

    def read(self, decode: Callable[[Any], T]) -> T:
        """Read the document and return the result of ``decode``, which may raise ValueError, TypeError or KataError.

        :raise HostError: the file cannot be read, or is damaged.
        """
        try:
            with open(self._path, "rb") as file:
                return decode(fast_json.loads(file.read().decode()))
        except OSError as error:
            raise HostError.of(f"cannot read {self._path}", error) from error
        except (ValueError, TypeError, RecursionError, KataError) as error:
            raise HostError(f"{self._path} is damaged: {error}", hint="delete --force the container") from error

    def end(self) -> None:
        """Remove the work, which is finished or undone, from the record, and then the file.

        :raise HostError: the record cannot be written.
        """
        with held_signals():
            # Even when the record in memory has no such work: writing it may have failed, and the one on disk has it.
            self._session.save(ended(self._session.record, self._work))
            with suppress(OSError):
                # A leftover file does no harm: without pending work it is not read, and the next work replaces it.
                os.unlink(self._path)
