"""The exec ports: each serves one command or container at a time."""

from __future__ import annotations

import errno
import select
import signal
from functools import partial
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.command_process import Process, parse_command
from kata_runtime.guest.agent.containers import Container, Crun, parse_request

if TYPE_CHECKING:
    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.job import Job
    from kata_runtime.guest.agent.loop import Loop

# The disconnection of a previous host is sometimes reported late, when the next is connected.
_RECHECK_SECONDS = 0.2


class ExecPort:
    """A port and the job that its client started."""

    def __init__(self, port: Port, loop: Loop, crun: Crun) -> None:
        self._port = port
        self._loop = loop
        self._crun = crun
        self._request = 0
        self._job: Job | None = None
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
        if gone and self._job is not None:
            self._loop.later(_RECHECK_SECONDS, self._recheck_connection)
        self._watch()

    def _recheck_connection(self) -> None:
        """Hang up if no host is connected."""
        if not self._port.is_connected():
            self._port.drop()
            self._hang_up()

    def _handle(self, kind: int, request: int, payload: bytes) -> None:
        if kind == wire.HELLO:
            self._hang_up()
            self._port.greet(request, payload)
        elif kind in (wire.EXEC, wire.CREATE, wire.CONTAINER_EXEC):
            self._start(kind, request, payload)
        elif self._job is None:
            return
        elif kind == wire.SIGNAL and payload and payload[0] in signal.valid_signals():
            self._job.signal(payload[0])
        elif kind == wire.RESIZE:
            self._job.resize(*wire.unpack_size(payload))
        elif self._job.streams is not None:
            # The calls below may close descriptors, which must not be watched then.
            self._unwatch()
            if kind == wire.STDIN:
                self._job.streams.feed(payload)
            elif kind in (wire.STDOUT, wire.STDERR):
                self._job.streams.drop_output(kind)

    def _start(self, kind: int, request: int, payload: bytes) -> None:
        if self._job is not None:
            self._done(request, errno.EBUSY, "the port is in use")
            return
        self._request = request
        try:
            if kind == wire.EXEC:
                self._job = Process(self._port, request, parse_command(payload), self._crun.children, self)
            else:
                self._job = Container(self._port, request, parse_request(kind, payload), self._crun, self)
        except OSError as error:
            self._done(request, error.errno or errno.EIO, error.strerror or "")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self._done(request, errno.EINVAL, str(error))

    def _done(self, request: int, number: int, text: str) -> None:
        self._port.send(wire.DONE, request, wire.pack_done(number, text))

    def started(self, job: Job) -> None:
        """Relay the streams of ``job``."""
        if job is self._job:
            self._watch()

    def failed(self, job: Job, number: int, text: str) -> None:
        """Report to the host why ``job`` could not be started."""
        if job is self._job:
            self._job = None
            self._done(self._request, number, text)

    def ended(self, job: Job, status: int) -> None:
        """Report the end of ``job`` to the host, unless the host has disconnected."""
        if job is self._job:
            self._unwatch()
            self._job = None
            job.finish(status)

    def _hang_up(self) -> None:
        if self._job is not None:
            self._unwatch()
            job, self._job = self._job, None
            job.hang_up()

    def _unwatch(self) -> None:
        for fd in self._watched:
            self._loop.forget(fd)
        self._watched.clear()

    def _watch(self) -> None:
        """Watch what can make progress: outputs while the port has room, standard input while data is queued for it."""
        streams = None if self._job is None else self._job.streams
        wanted: dict[int, int] = {}
        if streams is not None:
            if not self._port.is_full:
                wanted = dict.fromkeys(streams.outputs, int(select.EPOLLIN))
            if streams.wants_stdin():
                wanted[streams.stdin] = int(select.EPOLLOUT)
        for fd in self._watched - wanted.keys():
            self._loop.forget(fd)
        for fd in wanted.keys() - self._watched:
            self._loop.watch(fd, wanted[fd], partial(self._stream_ready, fd))
        self._watched = set(wanted)

    def _stream_ready(self, fd: int) -> None:
        streams = None if self._job is None else self._job.streams
        if streams is None:
            return
        # Reading or writing may close the descriptor, so it is unregistered before.
        self._loop.forget(fd)
        self._watched.discard(fd)
        if fd in streams.outputs:
            streams.read_output(fd)
        else:
            streams.write_stdin()
        self._watch()
