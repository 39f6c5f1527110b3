"""Processes of a sandbox: starting them detached and confined; identifying them by pid and start time, or by pidfd."""

from __future__ import annotations

import errno
import os
import select

from kata_runtime import fast_signal as signal
from kata_runtime.errors import DeadlineError, HostError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from kata_runtime.fast_contextlib import ExitStack
    from kata_runtime.sandbox.confinement import Calls, Confinement

END_SECONDS = 10.0
ENDING_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def start_time_of(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot (proc(5), stat, field 22); None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, which may contain anything.
    fields = text[text.rindex(b")") + 2 :].split()
    # A zombie's other threads may still be closing the files of a killed QEMU (field 20 is the number of threads).
    ended = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return None if ended else int(fields[19])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process with this pid and start time is running."""
    return pid > 0 and start_time_of(pid) == start_time


def kill_process(pid: int, start_time: int) -> None:
    """Kill the process with this pid and start time, if it is running, and wait for its end.

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
    """Wait until the process with this pid and start time has ended.

    :raise DeadlineError: it has not within ``seconds``.
    """
    process = _open_process(pid, start_time)
    if process is None:
        return
    try:
        _await_end(process, pid, seconds)
    finally:
        os.close(process)


@contextmanager
def process_descriptor(pid: int, start_time: int) -> Iterator[int]:
    """A pidfd of the process with this pid and start time.

    :raise HostError: it has ended.
    """
    process = _open_process(pid, start_time)
    if process is None:
        raise HostError(f"process {pid} has ended")
    try:
        yield process
    finally:
        os.close(process)


def processes_of(user: int, argument: bytes) -> list[tuple[int, int]]:
    """Pid and start time of the processes of ``user`` that have ``argument`` on their command line.

    It finds the processes of a sandbox whose record cannot be read, by the user that only they run as.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        start_time = start_time_of(pid)
        if start_time is None or _user_of_process(pid) != user:
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argument in arguments:
            found.append((pid, start_time))
    return found


def _user_of_process(pid: int) -> int | None:
    # /proc/PID of a process that is not dumpable belongs to root: its status file has the user.
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None


@contextmanager
def held_signals() -> Iterator[None]:
    """Block SIGINT, SIGTERM and SIGHUP between a change and the registration of its undoing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # A handler for an earlier signal can raise from this call, when the new mask is already set.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Program(NamedTuple):
    """A program to execute: ``output`` becomes its standard output and error, the descriptors ``keep`` stay open.

    A program without ``confinement`` confines itself; ``keeps_capabilities`` when it changes its user.
    """

    argv: Sequence[str]
    confinement: Confinement | None
    output: int
    keep: Sequence[int] = ()
    keeps_capabilities: bool = False


class Child:
    """A forked process that waits to execute its program; the ``ExitStack`` it was created with kills it."""

    def __init__(self, program: Program, undo: ExitStack) -> None:
        """Fork, and register the killing with ``undo``.

        The program is executed by ``release``, and never if this process ends before that, in whatever way.

        :raise HostError: no process can be created.
        """
        self._name = program.argv[0]
        self._ended = False
        self.exit_status = 0
        self._gate = -1
        undo.callback(self._close_gate)
        try:
            self._fork(program, undo)
        except OSError as error:
            raise HostError.of(f"cannot start {self._name}", error) from error

    def _fork(self, program: Program, undo: ExitStack) -> None:
        from kata_runtime.sandbox.confinement import load_calls

        calls = load_calls()
        gate_out, self._gate = os.pipe2(os.O_CLOEXEC)
        self._failure, failure_in = os.pipe2(os.O_CLOEXEC)
        # No signal arrives between fork and registration, and the child runs none of our handlers.
        with held_signals():
            self.pid = os.fork()
            if self.pid == 0:
                _become(program, calls, gate_out, failure_in)
            # It is not reaped yet, so no other process can have its pid.
            self.fd = os.pidfd_open(self.pid)
            undo.callback(self.end)
            self.start_time = start_time_of(self.pid) or 0
        os.close(gate_out)
        os.close(failure_in)

    def release(self) -> None:
        """Let the child execute its program, and wait until it does.

        :raise HostError: it cannot be started.
        """
        self.open_gate()
        self.await_program()

    def open_gate(self) -> None:
        """Let the child execute its program; ``await_program`` must follow.

        :raise HostError: the child was killed.
        """
        try:
            os.write(self._gate, b"\0")
        except BrokenPipeError:
            raise HostError(f"cannot start {self._name}: its process was killed") from None
        self._close_gate()

    def await_program(self) -> None:
        """Wait until the child executes its program.

        :raise HostError: it cannot be started.
        """
        # execve closes the child's end of the pipe; before that it can only contain an error message.
        failure = b"".join(iter(lambda: os.read(self._failure, 4096), b""))
        if failure:
            raise HostError(f"cannot start {self._name}: {failure.decode(errors='replace')}")

    def end(self) -> None:
        """Kill the process, wait for it and release its descriptor; can be called twice.

        :raise DeadlineError: it does not end.
        """
        if self._ended:
            return
        signal.pidfd_send_signal(self.fd, signal.SIGKILL)
        self.await_end(END_SECONDS)

    def await_end(self, seconds: float) -> int:
        """Wait for the end of the process; returns its exit status, negative for a signal.

        :raise DeadlineError: it does not end within ``seconds``.
        """
        if not self._ended:
            _await_end(self.fd, self.pid, seconds)
            _, status = os.waitpid(self.pid, 0)
            self.exit_status = os.waitstatus_to_exitcode(status)
            self.forget()
        return self.exit_status

    def forget(self) -> None:
        """Close the descriptors of the process: from now on it runs independently."""
        self._ended = True
        os.close(self.fd)
        os.close(self._failure)

    def _close_gate(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1


def _become(program: Program, calls: Calls, gate: int, failure: int) -> NoReturn:
    """In the child: wait for ``release``, close inherited descriptors, drop rights and execute the program."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) != signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        # The program must not inherit descriptors of the command's caller; and the child's copy of the gate's write
        # end must be closed, so that the parent's death is seen as the end of the pipe.
        _close_all_but({0, 1, 2, gate, failure, program.output, *program.keep})
        if not os.read(gate, 1):
            os._exit(1)
        os.chdir("/")
        os.umask(0o077)
        nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for source, target in ((nowhere, 0), (program.output, 1), (program.output, 2)):
            os.dup2(source, target)
        for fd in program.keep:
            os.set_inheritable(fd, True)
        if program.confinement is not None:
            from kata_runtime.sandbox.confinement import confine  # loaded before the fork

            confine(program.confinement, calls)
        if program.keeps_capabilities:
            from kata_runtime.sandbox.confinement import keep_capabilities

            keep_capabilities(calls)
        os.execv(program.argv[0], list(program.argv))
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        step = "" if error.filename in (None, program.argv[0]) else f"{error.filename}: "
        os.write(failure, f"{step}{reason}".encode())
    finally:
        os._exit(127)


def _close_all_but(kept: set[int]) -> None:
    following = 0
    for fd in [*sorted(kept), 1 << 30]:
        if fd > following:
            os.closerange(following, fd)  # uses close_range(2) if the kernel has it
        following = fd + 1


def _open_process(pid: int, start_time: int) -> int | None:
    if pid <= 0:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Checked after opening: the descriptor refers to the same process from then on.
    if start_time_of(pid) != start_time:
        os.close(process)
        return None
    return process


def _await_end(process: int, pid: int, seconds: float) -> None:
    poller = select.poll()
    poller.register(process, select.POLLIN)
    if not poller.poll(seconds * 1000):
        raise DeadlineError(f"the end of process {pid}", seconds)
