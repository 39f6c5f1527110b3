"""QEMU as a process of its own: detached, unprivileged, and known by more than its pid."""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import TYPE_CHECKING, NoReturn

from kata_runtime.errors import DeadlineError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

END_SECONDS = 10.0


def start_time_of(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22); None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold anything.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether this very process still runs."""
    return pid > 0 and start_time_of(pid) == start_time


def kill_process(pid: int, start_time: int) -> None:
    """End this very process at once and wait for it; one that has ended is fine.

    :raise DeadlineError: it does not end.
    """
    process = _open_process(pid, start_time)
    if process is None:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        _await_end(process, pid, END_SECONDS)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def await_end(pid: int, start_time: int, seconds: float) -> None:
    """Wait until this very process has ended.

    :raise DeadlineError: it has not within ``seconds``.
    """
    process = _open_process(pid, start_time)
    if process is None:
        return
    try:
        _await_end(process, pid, seconds)
    finally:
        os.close(process)


def spawn(
    argv: Sequence[str],
    *,
    user: int,
    groups: Sequence[int],
    output: int,
    keep: Sequence[int],
    started: Callable[[int], None],
) -> int:
    """Start ``argv`` as ``user`` in a session of its own; its pid.

    ``output`` becomes standard output and error, the descriptors ``keep`` stay open under their numbers.
    ``started`` is called with the pid before the program begins; when it fails, or this process is killed
    meanwhile, the program never does. So no QEMU runs that no record names.

    :raise HostError: it cannot be started.
    """
    gate_out, gate_in = os.pipe2(os.O_CLOEXEC)
    failure_out, failure_in = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(gate_in)
        _become(argv, user, groups, output, keep, gate_out, failure_in)
    os.close(gate_out)
    os.close(failure_in)
    try:
        try:
            started(pid)
            os.write(gate_in, b"\0")
        finally:
            os.close(gate_in)
        failure = b"".join(iter(lambda: os.read(failure_out, 4096), b""))
    except BaseException:
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(failure_out)
    if failure:
        os.waitpid(pid, 0)
        raise HostError(f"cannot start {argv[0]}: {failure.decode(errors='replace')}")
    return pid


def _become(
    argv: Sequence[str],
    user: int,
    groups: Sequence[int],
    output: int,
    keep: Sequence[int],
    gate: int,
    failure: int,
) -> NoReturn:
    """In the child: wait for the gate, drop everything, be the program."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if not os.read(gate, 1):
            os._exit(1)
        os.chdir("/")
        os.umask(0o077)
        nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, target in ((nowhere, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for fd in keep:
            os.set_inheritable(fd, True)
        os.setgroups(list(groups))
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.execv(argv[0], list(argv))
    except OSError as error:
        os.write(failure, os.strerror(error.errno or errno.EIO).encode())
    finally:
        os._exit(127)


def _open_process(pid: int, start_time: int) -> int | None:
    if pid <= 0:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Asked after opening: from here on the descriptor cannot come to mean another process.
    if start_time_of(pid) != start_time:
        os.close(process)
        return None
    return process


def _await_end(process: int, pid: int, seconds: float) -> None:
    poller = select.poll()
    poller.register(process, select.POLLIN)
    if not poller.poll(seconds * 1000):
        raise DeadlineError(f"the end of process {pid} (QEMU)", seconds)
