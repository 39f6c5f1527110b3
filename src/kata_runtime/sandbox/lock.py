"""Locks that end with the process that holds them (flock(2))."""

from __future__ import annotations

import _thread
import fcntl
import os
import select

from kata_runtime import fast_signal as signal
from kata_runtime import operation_log
from kata_runtime.errors import DeadlineError, HostError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Default deadline. It is longer than any command holds a lock: 200,000 rules take 15 s without KVM, and boots and NICs
# less. A process that was stopped (SIGSTOP) keeps its lock for ever.
DEFAULT_SECONDS = 120.0
_NOTICE_SECONDS = 1.0


def _no_notice(_message: str) -> None:
    return


class LockWait(NamedTuple):
    """How long to wait for a lock; ``notify`` is called with one line if it takes longer than a second.

    ``notify`` must not block: another lock may be held.
    """

    seconds: float = DEFAULT_SECONDS
    notify: Callable[[str], None] = _no_notice


class LockFile:
    """An open lock file; closing it releases the lock."""

    def __init__(self, path: str) -> None:
        """Open the file; it is created if it is missing.

        :raise FileNotFoundError: its directory is missing.
        :raise HostError: the file system refused.
        """
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HostError.of(f"cannot open {path}", error) from error

    def acquire(self, lock_wait: LockWait, what: str) -> bool:
        """Wait for the lock; False if the file was removed meanwhile, because its sandbox was deleted.

        :raise DeadlineError: another process held it too long; ``what`` names its subject in the message.
        """
        with operation_log.measured("lock", path=self._path):
            if not self._lock_now():
                self._wait(lock_wait, what)
        return self._is_current()

    def try_acquire(self) -> bool:
        """Take the lock if it is free; returns whether it was."""
        return self._lock_now() and self._is_current()

    def close(self) -> None:
        """Release the lock, if it was taken, and close the file."""
        os.close(self._fd)

    def _lock_now(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise HostError.of(f"cannot lock {self._path}", error) from error
        return True

    def _wait(self, lock_wait: LockWait, what: str) -> None:
        """Wait for flock(2), which has no deadline, in a thread.

        At the deadline or after a signal the thread is abandoned; if it is granted the lock later, that is released at
        once, as the caller has closed the file.
        """
        poller = select.poll()
        with self._granted() as (granted, failure):
            poller.register(granted, 0)  # POLLHUP is always reported
            notice = min(_NOTICE_SECONDS, lock_wait.seconds)
            if not poller.poll(notice * 1000):
                if lock_wait.seconds > notice:
                    lock_wait.notify(f"waiting for {what}, which {self._holder()} uses")
                if not poller.poll((lock_wait.seconds - notice) * 1000):
                    raise DeadlineError(
                        f"the end of the work of {self._holder()} on {what}",
                        lock_wait.seconds,
                        hint="try again later, or wait longer with --lock-timeout",
                    )
            for error in failure:
                raise HostError.of(f"cannot lock {self._path}", error) from error

    @contextmanager
    def _granted(self) -> Iterator[tuple[int, list[OSError]]]:
        """A descriptor that hangs up when flock(2) has returned; if that failed, its errno can be read from it."""
        granted, held = os.pipe2(os.O_CLOEXEC)
        # The lock belongs to the open file description of both descriptors: it is released when both are closed.
        copy = os.dup(self._fd)
        failure: list[OSError] = []

        def take() -> None:
            # The thread blocks all signals, so that they interrupt the main thread.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                fcntl.flock(copy, fcntl.LOCK_EX)
            except OSError as error:
                failure.append(error)
            finally:
                os.close(copy)
                os.close(held)

        try:
            _thread.start_new_thread(take, ())
        except RuntimeError as error:
            for descriptor in (copy, held, granted):
                os.close(descriptor)
            raise HostError(f"cannot wait for {self._path}: {error}") from error
        try:
            yield granted, failure
        finally:
            os.close(granted)

    def _holder(self) -> str:
        """The process that holds the lock, if /proc/locks shows it (proc(5)), as messages name it."""
        mine = os.fstat(self._fd)
        place = f"{os.major(mine.st_dev):02x}:{os.minor(mine.st_dev):02x}:{mine.st_ino}"
        try:
            with open("/proc/locks", encoding="ascii") as locks:
                for line in locks:
                    # "1: FLOCK  ADVISORY  WRITE 708 00:14:22 0 EOF"; those that wait have "->" behind the number.
                    fields = line.split()
                    if fields[1] == "FLOCK" and fields[5] == place:
                        return f"process {fields[4]}{_stopped(fields[4])}"
        except (OSError, ValueError, IndexError):
            pass
        return "another process"

    def _is_current(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _stopped(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as status:
            state = status.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return " (stopped)" if state in "Tt" else ""


@contextmanager
def global_lock(root: str, lock_wait: LockWait) -> Iterator[None]:
    """Hold the lock on what must be unique among all sandboxes of ``root``, such as the use of a device.

    It is taken after the lock of a sandbox, never before one, and held for milliseconds.

    :raise DeadlineError: another process held it too long.
    """
    lock = LockFile(os.path.join(root, ".lock"))
    try:
        lock.acquire(lock_wait, f"the containers below {root}")
        yield
    finally:
        lock.close()


@contextmanager
def stops_deferred() -> Iterator[None]:
    """Defer Ctrl-Z (SIGTSTP) to the end of the block: a stopped process would keep its locks.

    It sets a handler, which programs started meanwhile do not inherit, unlike a mask.
    """
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTSTP, lambda number, _frame: asked.append(number))
    except ValueError:
        # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before or signal.SIG_DFL)
        if asked:
            os.kill(os.getpid(), signal.SIGTSTP)
