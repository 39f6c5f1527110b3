"""Locks that end with the process that holds them (flock(2))."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kata_runtime import operation_log
from kata_runtime.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator


class LockFile:
    """An open lock file; closing it releases the lock."""

    def __init__(self, path: str) -> None:
        """Open the file, making it where it is missing.

        :raise FileNotFoundError: its directory is missing.
        :raise HostError: the file system refused.
        """
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HostError(f"cannot open {path}: {error.strerror}", errno=error.errno or 0) from error

    def acquire(self) -> bool:
        """Wait for the lock; False when the file was removed meanwhile, as by the deletion of its sandbox.

        There is no deadline here: everything that is done under a lock has one.
        """
        with operation_log.measured("lock", path=self._path):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self._is_current()

    def try_acquire(self) -> bool:
        """Take the lock when nobody holds it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._is_current()

    def close(self) -> None:
        """Release the lock, if it was taken, and close the file."""
        os.close(self._fd)

    def _is_current(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


@contextmanager
def global_lock(root: str) -> Iterator[None]:
    """Keep other commands from looking at or changing what must be unique among all sandboxes of ``root``.

    It is taken after the lock of a sandbox, never before one, and held for moments.
    """
    lock = LockFile(os.path.join(root, ".lock"))
    try:
        lock.acquire()
        yield
    finally:
        lock.close()
