"""The exec ports: each serves one command at a time."""

from __future__ import annotations

import errno
import os
import select
import signal
from functools import partial
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.process import Process, parse_argv

if TYPE_CHECKING:
    from kata_runtime.guest.agent.loop import Loop
    from kata_runtime.guest.agent.port import Port

_GRACE_SECONDS = 0.2


class ExecPort:
    """A port and the process that its client asked for."""

    def __init__(self, port: Port, loop: Loop) -> None:
        self._port = port
        self._loop = loop
        self._process: Process | None = None
        self._watched: set[int] = set()
        port.greet(0, b"")
        loop.watch(port.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET, self._ready)

    def _ready(self) -> None:
        self._port.flush()
        frames, gone = self._port.receive()
        for raw in frames:
            try:
                self._handle(*wire.unpack_body(raw))
            except wire.FrameError:
                continue
        if gone and self._process is not None:
            self._loop.later(_GRACE_SECONDS, self._check_presence)
        self._watch()

    def _check_presence(self) -> None:
        """Hang up when the host is still gone: the news of its predecessor's end can reach us late."""
        if not self._port.is_connected():
            self._port.drop()
            self._hang_up()

    def _handle(self, kind: int, request: int, payload: bytes) -> None:
        if kind == wire.HELLO:
            self._hang_up()
            self._port.greet(request, payload)
        elif kind == wire.EXEC:
            self._start(request, payload)
        elif self._process is None:
            return
        elif kind == wire.STDIN:
            self._loop.forget(self._process.stdin)
            self._watched.discard(self._process.stdin)
            self._process.feed(payload)
        elif kind == wire.SIGNAL and payload and payload[0] in signal.valid_signals():
            self._process.signal(payload[0])

    def _start(self, request: int, payload: bytes) -> None:
        if self._process is not None:
            self._done(request, errno.EBUSY, "the port is in use")
            return
        try:
            process = Process(self._port, request, parse_argv(payload))
        except OSError as error:
            self._done(request, error.errno or errno.EIO, error.strerror or "")
            return
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._done(request, errno.EINVAL, str(error))
            return
        self._process = process
        self._loop.watch(process.pidfd, select.EPOLLIN, lambda: self._ended(process))

    def _done(self, request: int, number: int, text: str) -> None:
        self._port.send(wire.DONE, request, wire.pack_done(number, text))

    def _ended(self, process: Process) -> None:
        self._loop.forget(process.pidfd)
        _, status = os.waitpid(process.pid, 0)
        os.close(process.pidfd)
        if process is self._process:
            self._unwatch()
            self._process = None
            process.finish(os.waitstatus_to_exitcode(status))

    def _hang_up(self) -> None:
        # The pidfd stays watched: the process is reaped whenever it ends.
        if self._process is not None:
            self._unwatch()
            process, self._process = self._process, None
            process.hang_up()

    def _unwatch(self) -> None:
        for fd in self._watched:
            self._loop.forget(fd)
        self._watched.clear()

    def _watch(self) -> None:
        """Watch the pipes that can make progress: no output while the port is full, no input without need."""
        process = self._process
        wanted: dict[int, int] = {}
        if process is not None:
            if not self._port.is_full:
                wanted = dict.fromkeys(process.outputs, int(select.EPOLLIN))
            if process.wants_stdin():
                wanted[process.stdin] = int(select.EPOLLOUT)
        for fd in self._watched - wanted.keys():
            self._loop.forget(fd)
        for fd in wanted.keys() - self._watched:
            self._loop.watch(fd, wanted[fd], partial(self._pipe_ready, fd))
        self._watched = set(wanted)

    def _pipe_ready(self, fd: int) -> None:
        process = self._process
        if process is None:
            return
        # Reading or writing may close the descriptor, which epoll would then forget behind our back.
        self._loop.forget(fd)
        self._watched.discard(fd)
        if fd in process.outputs:
            process.read_output(fd)
        else:
            process.write_stdin()
        self._watch()
