"""One command that runs in the container for a host that holds an exec port."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from kata_runtime.guest import wire

if TYPE_CHECKING:
    from kata_runtime.guest.agent.port import Port

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "dumb",
}
_READ_BYTES = 32 * 1024
_PIPE_BYTES = 64 * 1024
_ALL_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def parse_argv(payload: bytes) -> list[str]:
    """The argument vector of an EXEC frame.

    :raise ValueError: when it is not JSON of the agreed shape.
    """
    argv = json.loads(payload)["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("argv must be a list of strings")
    return argv


class Process:
    """A child with three pipes and a pidfd, all watched by the agent's epoll."""

    def __init__(self, port: Port, request: int, argv: list[str]) -> None:
        """Start ``argv`` in its own session.

        :raise OSError: when it cannot be started (ENOENT, EACCES, E2BIG).
        """
        self._port = port
        self._request = request
        self._stdin_queue = bytearray()
        self._stdin_ends = False
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for is_output in (False, True, True):
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                ours.append(read_end if is_output else write_end)
                theirs.append(write_end if is_output else read_end)
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                _ENVIRONMENT,
                file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(theirs)],
                setsid=True,
                setsigdef=_ALL_SIGNALS,
                setsigmask=[],
            )
        except BaseException:
            for end in ours:
                os.close(end)
            raise
        finally:
            for end in theirs:
                os.close(end)
        for end in ours:
            os.set_blocking(end, False)
        self.stdin, self._stdout, self._stderr = ours
        self.outputs = {self._stdout: wire.STDOUT, self._stderr: wire.STDERR}
        self.pidfd = os.pidfd_open(self.pid)
        port.send(wire.STARTED, request, wire.pack_count(self.pid))

    def feed(self, data: bytes) -> None:
        """Queue standard input; empty data ends it."""
        if self.stdin < 0:
            self._taken(len(data))
            return
        if data:
            self._stdin_queue += data
        else:
            self._stdin_ends = True
        self.write_stdin()

    def write_stdin(self) -> bool:
        """Write what the pipe takes; True while something is left that the pipe did not take."""
        while self._stdin_queue and self.stdin >= 0:
            try:
                written = os.write(self.stdin, self._stdin_queue[: wire.STDIN_WINDOW_BYTES])
            except BlockingIOError:
                return True
            except BrokenPipeError:
                self._taken(len(self._stdin_queue))
                self._stdin_queue.clear()
                self.close_stdin()
                return False
            del self._stdin_queue[:written]
            self._taken(written)
        if self._stdin_ends:
            self.close_stdin()
        return False

    def close_stdin(self) -> None:
        """Let the process see the end of its input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def wants_stdin(self) -> bool:
        """Whether the agent should wake us when the pipe takes more."""
        return self.stdin >= 0 and bool(self._stdin_queue)

    def read_output(self, fd: int) -> None:
        """Pass output on while the port's queue is not too long."""
        kind = self.outputs[fd]
        while not self._port.is_full:
            try:
                data = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                del self.outputs[fd]
                os.close(fd)
                return
            self._port.send(kind, self._request, data)

    def signal(self, number: int) -> None:
        """Send a signal to the process; one that has ended already needs none."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def finish(self, status: int) -> None:
        """Pass the last output and the exit status on, and close everything.

        What a grandchild still holds open is not waited for: its end may never come.
        """
        for fd in list(self.outputs):
            self._drain_output(fd)
        self._port.send(wire.EXIT, self._request, wire.pack_count(status))
        self.abandon()

    def _drain_output(self, fd: int) -> None:
        # A pipe holds 64 KiB (pipe(7)); a grandchild that keeps writing must not keep us here.
        for _ in range(_PIPE_BYTES // _READ_BYTES + 1):
            try:
                data = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self._port.send(self.outputs[fd], self._request, data)

    def abandon(self) -> None:
        """Close our ends of the pipes."""
        self.close_stdin()
        for fd in list(self.outputs):
            os.close(fd)
        self.outputs.clear()

    def hang_up(self) -> None:
        """The host is gone: end the process's session as a terminal that closes would."""
        self.abandon()
        for number in (signal.SIGHUP, signal.SIGCONT):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return

    def _taken(self, count: int) -> None:
        if count:
            self._port.send(wire.STDIN_TAKEN, self._request, wire.pack_count(count))
