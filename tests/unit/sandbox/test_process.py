"""Processes that are started confined and held by a descriptor."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import HostError
from kata_runtime.sandbox.confinement import Confinement, confinement_of
from kata_runtime.sandbox.process import (
    Child,
    Program,
    held_signals,
    is_alive,
    kill_process,
    processes_of,
    start_time_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# arch/x86/entry/syscalls/syscall_64.tbl; elsewhere include/uapi/asm-generic/unistd.h
_SYS_EXIT = 60 if os.uname().machine == "x86_64" else 93
_USER = 0x7FFF0001
_CONFINEMENT = Confinement(_USER, [_USER], [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 64)])


@contextmanager
def _child(undo: ExitStack, *argv: str, confinement: Confinement = _CONFINEMENT) -> Iterator[tuple[Child, int]]:
    """A child whose output can be read."""
    readable, writable = os.pipe2(os.O_CLOEXEC)
    try:
        made = Child(Program(argv, confinement, writable), undo)
        os.close(writable)
        yield made, readable
    finally:
        os.close(readable)


def _read(fd: int) -> str:
    return b"".join(iter(lambda: os.read(fd, 4096), b"")).decode()


def test_process_lives_while_a_thread_does() -> None:
    """A process whose first thread has ended is not taken for ended."""
    script = (
        "import ctypes, threading; threading.Thread(target=input).start(); print(flush=True)\n"
        f"ctypes.CDLL(None).syscall({_SYS_EXIT}, 0)"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        started = start_time_of(process.pid)
        assert started is not None
        assert process.stdout is not None
        process.stdout.readline()
        with select.epoll() as poller:
            while ") Z " not in Path(f"/proc/{process.pid}/stat").read_text():
                poller.poll(0.01)
        assert is_alive(process.pid, started)
        kill_process(process.pid, started)
        assert not is_alive(process.pid, started)


def test_processes_are_known_by_their_start() -> None:
    """A pid alone does not get a process killed; pid and start time do."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = start_time_of(process.pid)
        assert started is not None
        assert is_alive(process.pid, started)
        kill_process(process.pid, started + 1)
        assert is_alive(process.pid, started)
        kill_process(process.pid, started)
        assert not is_alive(process.pid, started)
        assert process.wait() == -signal.SIGKILL
    assert not is_alive(0, 0)


def test_nothing_begins_before_its_release(tmp_path: Path) -> None:
    """A child that is not released never becomes its program, and is gone when the stack has unwound."""
    made = tmp_path / "made"
    tmp_path.chmod(0o777)
    with ExitStack() as undo, _child(undo, "/usr/bin/touch", str(made)) as (child, _):
        pid, start_time = child.pid, child.start_time
        assert is_alive(pid, start_time)
    assert (made.exists(), is_alive(pid, start_time), child.exit_status) == (False, False, -signal.SIGKILL)


def test_program_that_cannot_be_started() -> None:
    """The system's reason is reported, and with it what was being done."""
    with ExitStack() as undo, _child(undo, "/nosuch") as (child, _), pytest.raises(HostError) as refused:
        child.release()
    assert str(refused.value) == "cannot start /nosuch: No such file or directory"


def test_child_that_was_killed_at_the_gate() -> None:
    """A child that somebody kills before its release is reported, not waited for."""
    with ExitStack() as undo, _child(undo, "/bin/true") as (child, _):
        kill_process(child.pid, child.start_time)
        with pytest.raises(HostError) as refused:
            child.release()
    assert str(refused.value) == "cannot start /bin/true: its process was killed"


def test_undo_does_not_wait_for_the_programs_own_end() -> None:
    """A program that ignores every signal it can is killed when the stack unwinds, at once."""
    with ExitStack() as undo, _child(undo, "/bin/sh", "-c", "trap '' INT TERM HUP; echo on; exec sleep 600") as made:
        child, output = made
        child.release()
        assert os.read(output, 3) == b"on\n"
    assert child.exit_status == -signal.SIGKILL


def test_nothing_of_ours_is_inherited() -> None:
    """The program has three descriptors, an open signal mask, default signals, no privilege, no network and limits."""
    # dash has no builtin for these; cat inherits them.
    script = "ls /proc/self/fd; ulimit -Hn; ulimit -Hc; cat /proc/self/status /proc/net/dev; id -u; umask; pwd"
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ExitStack() as undo, _child(undo, "/bin/sh", "-c", script) as (child, output):
            child.release()
            text = _read(output)
            assert child.await_end(10) == 0
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(leaked)
    lines = text.splitlines()
    # ls itself opens the fourth.
    assert lines[:6] == ["0", "1", "2", "3", "64", "0"]
    assert lines[-3:] == [str(_USER), "0077", "/"]
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    zero = "0" * 16
    # posix_spawn(3) of whoever started the tests can leave glibc's own two signals, 32 and 33, ignored: no program sees
    # them, and Python cannot name them.
    status["SigIgn"] = f"{int(status['SigIgn'], 16) & ~(3 << 31):016x}"
    shown = {key: status[key] for key in status if key.startswith("Cap") or key in ("SigBlk", "SigIgn", "NoNewPrivs")}
    assert shown == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk", "SigIgn"), zero),
        "NoNewPrivs": "1",
    }
    assert [line.split(":")[0].strip() for line in lines if ":" in line and " 0 " in line and "\t" not in line] == [
        "lo"
    ]


def test_limits_never_exceed_the_callers() -> None:
    """Each limit is at most what the caller may give, and processes are counted only for a user of its own."""
    own = dict(confinement_of(7, [7], vcpus=2, user_is_shared=False).limits)
    shared = dict(confinement_of(7, [7], vcpus=2, user_is_shared=True).limits)
    assert own == {**shared, resource.RLIMIT_NPROC: 1026}
    assert own[resource.RLIMIT_CORE] == 0


def test_signals_wait_while_they_are_held() -> None:
    """A signal that comes in the block is delivered behind it, and the mask is as before."""

    class CameError(Exception):
        pass

    def raise_it(_number: int, _frame: object) -> None:
        raise CameError

    def send_it_held() -> None:
        with held_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(True)

    reached: list[bool] = []
    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        with pytest.raises(CameError):
            send_it_held()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert reached == [True]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_processes_are_found_by_user_and_argument() -> None:
    """Only processes of that user with that very word on their command line are found."""
    script = "import signal; print(flush=True); signal.pause()"
    program = [os.path.realpath(sys.executable), "-I", "-S", "-c", script]
    with ExitStack() as undo:
        started = []
        for user, word in ((_USER, "guest=kata-a"), (_USER, "guest=kata-ab"), (_USER + 1, "guest=kata-a")):
            confinement = Confinement(user, [user], [])
            child, output = undo.enter_context(_child(undo, *program, word, confinement=confinement))
            child.release()
            assert os.read(output, 1) == b"\n"
            started.append((child.pid, child.start_time))
        assert processes_of(_USER, b"guest=kata-a") == [started[0]]
        assert processes_of(_USER, b"guest=kata") == []
