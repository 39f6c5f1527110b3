"""Waiting for a lock: reported after a second, bounded, ended by signals at once; and no holder stops at Ctrl-Z."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import DeadlineError
from kata_runtime.sandbox.lock import LockFile, LockWait

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE = str(Path(__file__).parents[3] / "src")
_SECONDS = 30.0
_HOLDER = """
import sys
sys.path.append(sys.argv.pop(1))
from kata_runtime.sandbox.lock import LockFile, LockWait, stops_deferred
with stops_deferred():
    lock = LockFile(sys.argv[1])
    assert lock.acquire(LockWait(), "x")
    print("held", flush=True)
    sys.stdin.readline()
    lock.close()
    print("free", flush=True)
sys.stdin.readline()
"""


@contextmanager
def _holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own that holds the lock until it reads a line."""
    argv = [sys.executable, "-c", _HOLDER, _SOURCE, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def _give_up(lock: LockFile, seconds: float) -> tuple[str, list[str], float]:
    told: list[str] = []
    start = time.monotonic()
    with pytest.raises(DeadlineError) as refusal:
        lock.acquire(LockWait(seconds, told.append), "container web")
    return str(refusal.value), told, time.monotonic() - start


def test_wait_is_told_and_bounded(tmp_path: Path) -> None:
    """After a second the holder is named, stopped or not; after the time given the wait ends in an error."""
    path = tmp_path / "lock"
    with _holder(path) as process:
        lock = LockFile(str(path))
        who = f"process {process.pid}"
        message, told, seconds = _give_up(lock, 1.5)
        assert message == (
            f"the end of the work of {who} on container web did not happen within 1.5 s; "
            "try again later, or wait longer with --lock-timeout"
        )
        assert told == [f"waiting for container web, which {who} uses"]
        assert 1.5 <= seconds < _SECONDS
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        message, told, _ = _give_up(lock, 0)
        assert (message.split(" on ")[0], told) == (f"the end of the work of {who} (stopped)", [])
        lock.close()


def test_lock_given_up_is_not_held_later(tmp_path: Path) -> None:
    """A wait that was given up does not take the lock when it becomes free."""
    path = tmp_path / "lock"
    with _holder(path) as process:
        given_up = LockFile(str(path))
        _give_up(given_up, 0.1)
        given_up.close()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        # Whoever waits after it gets the lock, and keeps it alone.
        lock = LockFile(str(path))
        assert lock.acquire(LockWait(_SECONDS), "x")
        other = LockFile(str(path))
        assert not other.try_acquire()
        lock.close()
        assert other.acquire(LockWait(_SECONDS), "x")
        other.close()


# Whoever runs the tests in the background may have it ignored, and Python then leaves it so.
_WAITER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.append(sys.argv.pop(1))
from kata_runtime.sandbox.lock import LockFile, LockWait
def told(message):
    print(message, flush=True)
LockFile(sys.argv[1]).acquire(LockWait(3600, told), "container web")
"""


def test_interrupted_wait(tmp_path: Path) -> None:
    """SIGINT ends a wait at once."""
    path = tmp_path / "lock"
    with _holder(path) as holder:
        argv = [sys.executable, "-c", _WAITER, _SOURCE, str(path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == f"waiting for container web, which process {holder.pid} uses\n"
            try:
                waiter.send_signal(signal.SIGINT)
                _, stderr = waiter.communicate(timeout=_SECONDS)
            finally:
                waiter.kill()
        assert (waiter.returncode, stderr.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")


def test_stop_waits_for_the_end_of_the_lock(tmp_path: Path) -> None:
    """Ctrl-Z stops a process when it has released its lock, not before."""
    path = tmp_path / "lock"
    with _holder(path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.kill(process.pid, signal.SIGTSTP)
        process.stdin.write("\n")
        process.stdin.flush()
        # A process that had stopped would not have printed.
        assert process.stdout.readline() == "free\n"
        seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert seen is not None
        assert (seen.si_code, seen.si_status) == (os.CLD_STOPPED, signal.SIGTSTP)
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
