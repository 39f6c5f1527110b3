"""A command under ptrace(2): its system calls that change something, and a signal right before or after one of them.

Rejected: strace's inject=SYSCALL:signal=SIG:when=N. It counts calls by name and not by what they do (an open that
creates a file is one of hundreds that read modules), SIGKILL takes effect only before a call, and another signal only
after it. Functions replaced in Python find what somebody thought of. A seccomp filter (SECCOMP_RET_TRACE) would save
the stops at other calls, but QEMU inherits it, and without a tracer each of its traced calls fails with ENOSYS.

Only the command's own first thread is traced (no PTRACE_O_TRACEFORK, no PTRACE_O_TRACECLONE): neither QEMU nor the
child that becomes it, nor the thread that reads the console. x86-64 only, as are the machines.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tests.system.killing.calls import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# include/uapi/linux/ptrace.h, sys/ptrace.h
_TRACEME, _GETREGS, _SETREGS, _SYSCALL = 0, 12, 13, 24
_SETOPTIONS, _GET_SYSCALL_INFO = 0x4200, 0x420E
_O_TRACESYSGOOD, _O_TRACEEXEC, _O_EXITKILL = 0x1, 0x10, 0x100000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_EVENT_EXEC = 4
_INFO = struct.Struct("<B3xIQQ7Q")  # struct ptrace_syscall_info at an entry
_ENTRY, _EXIT = 1, 2
# struct user_regs_struct (sys/user.h): 27 words
_REGISTERS = struct.Struct("<27Q")
_RAX, _ORIG_RAX, _RIP = 10, 15, 16
_SYSCALL_INSTRUCTION_BYTES = 2
_NO_CALL = (1 << 64) - 1

SECONDS = 60.0
MOMENTS = ("before", "after")


class Traced(NamedTuple):
    """How a traced command ended.

    ``status`` is as ``subprocess`` has it, ``calls`` the changing calls in order, ``reached`` whether it came to the
    one that was asked for, ``hung`` whether it was still there after the seconds allowed.
    """

    status: int
    stdout: str
    stderr: str
    calls: list[str]
    reached: bool
    hung: bool


def run_traced(
    argv: Sequence[str],
    stdin: bytes = b"",
    *,
    at: int = -1,
    moment: str = "after",
    number: int = signal.SIGKILL,
    error: int = 0,
    victim: int = 0,
    seconds: float = SECONDS,
) -> Traced:
    """Run ``argv`` and send it signal ``number`` before or after its changing call ``at``, from 0 on.

    With ``error`` the call fails with that errno instead; with ``victim`` the signal goes to that process.
    Changing calls count from the moment on at which the process is Python.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            _become(argv, [given.fileno(), out.fileno(), err.fileno()])
        watched = _Watched(pid, at, moment, number, error, victim or pid)
        timer = threading.Timer(seconds, watched.give_up)
        timer.start()
        try:
            status = watched.run()
        finally:
            timer.cancel()
            timer.join()
        out.seek(0)
        err.seek(0)
        answer, told = out.read().decode(), err.read().decode()
        return Traced(status, answer, told, watched.calls, watched.reached, watched.hung)


def _become(argv: Sequence[str], descriptors: Sequence[int]) -> NoReturn:
    """In the child: be the program, stopped at its first instruction."""
    try:
        for target, source in enumerate(descriptors):
            os.dup2(source, target)
        _ptrace(_TRACEME, 0, 0, 0)
        os.execvp(argv[0], list(argv))
    finally:
        os._exit(127)


class _Watched:
    """A traced process from its first stop, at the execution of its program, to its end."""

    def __init__(self, pid: int, at: int, moment: str, number: int, error: int, victim: int) -> None:
        self._pid = pid
        self._at = at
        self._moment = moment
        self._number = number
        self._error = error
        self._victim = victim
        self._is_python = False
        self._in_target = False
        self._call = 0
        self.calls: list[str] = []
        self.reached = False
        self.hung = False

    def give_up(self) -> None:
        """End it: it takes too long."""
        self.hung = True
        os.kill(self._pid, signal.SIGKILL)

    def run(self) -> int:
        """Trace it until it ends; its status."""
        os.waitpid(self._pid, 0)
        _ptrace(_SETOPTIONS, self._pid, 0, _O_TRACESYSGOOD | _O_TRACEEXEC | _O_EXITKILL)
        self._is_python = self._runs_python()
        pass_on = 0
        while True:
            # SIGKILL ends it also while it is stopped; the next wait reports it.
            _ptrace(_SYSCALL, self._pid, 0, pass_on, may_be_gone=True)
            _, status = os.waitpid(self._pid, 0)
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            pass_on = self._stopped(os.WSTOPSIG(status), status >> 16)

    def _stopped(self, number: int, event: int) -> int:
        """Deal with a stop; the signal to pass on."""
        if number == _SYSCALL_STOP:
            self._at_call()
            return 0
        if event == _EVENT_EXEC:
            self._is_python = self._runs_python()
            return 0
        return number

    def _runs_python(self) -> bool:
        # .venv/bin/python3 is a link.
        return os.path.samefile(f"/proc/{self._pid}/exe", sys.executable)

    def _at_call(self) -> None:
        info = ctypes.create_string_buffer(_INFO.size)
        if not _ptrace(_GET_SYSCALL_INFO, self._pid, _INFO.size, ctypes.addressof(info), may_be_gone=True):
            return
        kind, _, _, _, call, *arguments = _INFO.unpack(info.raw)
        if kind == _EXIT and self._in_target:
            self._in_target = False
            if self._error:
                self._set_registers({_RAX: (1 << 64) - self._error})
                return
            if self._moment == "before":
                self._rewind()
            os.kill(self._victim, self._number)
        if kind != _ENTRY or not self._is_python:
            return
        name = name_of(call, arguments)
        if name is None or self.reached:
            return
        self.calls.append(name)
        if len(self.calls) - 1 == self._at:
            self.reached = True
            at_once = self._number == signal.SIGKILL or self._victim != self._pid
            if self._moment == "before" and not self._error and at_once:
                os.kill(self._victim, self._number)
                return
            self._in_target = True
            if self._moment == "before" or self._error:
                self._set_registers({_ORIG_RAX: _NO_CALL})

    def _rewind(self) -> None:
        """After a call that was kept from happening: let it happen when the signal's handler has run.

        So the signal arrives in the last moment before the call, when it interrupts nothing any more: a call that
        waits then waits in full.
        """
        registers = self._registers()
        self._set_registers({_RAX: self._call, _RIP: registers[_RIP] - _SYSCALL_INSTRUCTION_BYTES})

    def _registers(self) -> tuple[int, ...]:
        buffer = ctypes.create_string_buffer(_REGISTERS.size)
        _ptrace(_GETREGS, self._pid, 0, ctypes.addressof(buffer))
        return _REGISTERS.unpack(buffer.raw)

    def _set_registers(self, changed: dict[int, int]) -> None:
        registers = list(self._registers())
        if _ORIG_RAX in changed:
            self._call = registers[_ORIG_RAX]
        for place, value in changed.items():
            registers[place] = value
        buffer = ctypes.create_string_buffer(_REGISTERS.pack(*registers))
        _ptrace(_SETREGS, self._pid, 0, ctypes.addressof(buffer))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, pid: int, address: int, data: int, *, may_be_gone: bool = False) -> bool:
    """One request; False when the process is not there any more."""
    if _libc.ptrace(request, pid, address, data) >= 0:
        return True
    error = ctypes.get_errno()
    if may_be_gone and error == errno.ESRCH:
        return False
    raise OSError(error, f"ptrace request {request:#x} of process {pid}")
