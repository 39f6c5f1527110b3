"""Relays standard streams between descriptors of this process and a command or container behind an exec port."""

from __future__ import annotations

import os
import select
import time
from errno import EBADF, EPIPE

from kata_runtime.errors import DeadlineError, GuestError, HostError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.guest.host_port import GuestPort

# A pipe that poll(2) reports as writable takes PIPE_BUF bytes without blocking, but not necessarily more.
_WRITE_BYTES = select.PIPE_BUF
_READ_BYTES = 32 * 1024
# While this much output is queued for a slow reader, nothing more is read from the guest.
_BACKLOG_BYTES = 256 * 1024
# Deadline for the start of a process. crun takes 0.6 s under TCG; a guest that is out of memory takes longer.
START_SECONDS = 60.0
_REQUEST = 1
_EXIT_MAX, _SIGNAL_MAX, _ERRNO_MAX = 255, 64, 4095
_REASON_LENGTH = 4096


class RefusedError(GuestError):
    """The guest could not start the process: ``errno``, and the reason in ``message``."""

    def __init__(self, errno: int, text: str) -> None:
        shown = "".join(letter if letter.isprintable() else " " for letter in text[:_REASON_LENGTH])
        super().__init__(shown.strip() or os.strerror(errno))
        self.errno = errno


class Streams(NamedTuple):
    """Descriptors of standard input, output and error; they can be one terminal."""

    stdin: int
    stdout: int
    stderr: int


class Relay:
    """Relays the streams of one process on an exec port until it has ended.

    The caller's other descriptors (signals, notifications) are served in the same loop: see ``watch``.
    """

    def __init__(self, port: GuestPort, streams: Streams, *, owned: bool) -> None:
        """``owned``: outputs are closed at their end, so that their readers see it before the process ends."""
        self._port = port
        self._streams = streams
        # A terminal is one descriptor for all streams: it must not be closed at the end of one.
        self._owned = owned and len(set(streams)) == len(streams)
        self._deadline = 0.0
        self._watched: dict[int, Callable[[], None]] = {}
        self._started: Callable[[int], None] | None = None
        self._is_running = False
        self._stdin_open = True
        self._window = wire.STDIN_WINDOW_BYTES
        self._output = {wire.STDOUT: _Output(streams.stdout), wire.STDERR: _Output(streams.stderr)}
        self._status: int | None = None

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` from within ``run`` whenever ``fd`` is readable or has hung up."""
        self._watched[fd] = ready

    def forget(self, fd: int) -> None:
        """Stop watching ``fd``."""
        self._watched.pop(fd, None)

    def require_stdout(self) -> None:
        """Refuse to call a process successful whose output did not reach standard output, as on a full disk.

        The process knows of it only if it writes again. No reader, or a descriptor that was closed, is the caller's
        choice.

        :raise HostError: some output could not be written.
        """
        error = self._output[wire.STDOUT].error
        if error is not None and error.errno not in (EPIPE, EBADF):
            raise HostError.of("cannot write the command's output to standard output", error)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is running."""
        if self._is_running:
            self._port.send(wire.SIGNAL, _REQUEST, bytes([number]))

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the process's terminal, if it is running and has one."""
        if self._is_running:
            self._port.send(wire.RESIZE, _REQUEST, wire.pack_size(rows, columns))

    def run(self, kind: int, payload: bytes, started: Callable[[int], None] | None = None) -> int:
        """Send the request and relay; returns the exit status when the process has ended and its output is written.

        The status is as in a shell: 128 + N when signal N ended the process. ``started`` is called with the pid in the
        guest. Closing the port without waiting for the end kills a container.

        :raise RefusedError: the guest could not start the process.
        :raise DeadlineError: it neither started nor failed in time.
        :raise GuestError: the VM or its agent ended. :raise ProtocolError: the agent does not keep to the protocol.
        """
        self._started = started
        self._deadline = time.monotonic() + START_SECONDS
        self._port.send(kind, _REQUEST, payload)
        while self._status is None or any(output.waiting for output in self._output.values()):
            ready = self._wait()
            for fd in ready.keys() & self._watched.keys():
                if fd in self._watched:
                    self._watched[fd]()
            if self._reads_stdin() and ready.get(self._streams.stdin, 0) & ~select.POLLOUT:
                self._read_stdin()
            written = False
            for stream, output in self._output.items():
                if output.waiting and ready.get(output.fd, 0) & ~select.POLLIN:
                    if written and not _is_writable(output.fd):
                        continue  # both outputs are one pipe, and the first one has taken its last room
                    written = True
                    if not output.write():
                        self._lost(stream, output)
            if self._status is None and self._port.fileno() in ready:
                self._port.flush()
                self._port.fill()
                self._take_frames()
        return self._status if self._status >= 0 else 128 - self._status

    def _reads_stdin(self) -> bool:
        return self._is_running and self._stdin_open and self._window > 0

    def _wait(self) -> dict[int, int]:
        """Wait until a descriptor is ready; returns the events by descriptor."""
        events = dict.fromkeys(self._watched, int(select.POLLIN))
        if self._status is None:
            full = sum(len(output.waiting) for output in self._output.values()) > _BACKLOG_BYTES
            sending = select.POLLOUT if self._port.sending else 0
            events[self._port.fileno()] = (0 if full else select.POLLIN) | sending
            if self._reads_stdin():
                events[self._streams.stdin] = select.POLLIN
        for output in self._output.values():
            if output.waiting:
                events[output.fd] = events.get(output.fd, 0) | select.POLLOUT
        poller = select.poll()
        for fd, mask in events.items():
            poller.register(fd, mask)
        if self._is_running or self._status is not None:
            return dict(poller.poll())
        ready = dict(poller.poll(max(self._deadline - time.monotonic(), 0) * 1000))
        if not ready and time.monotonic() >= self._deadline:
            raise DeadlineError("the start of a process in the container", START_SECONDS)
        return ready

    def _read_stdin(self) -> None:
        try:
            data = os.read(self._streams.stdin, min(self._window, _READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a directory, or a terminal that was hung up: treated as the end of input
        self._window -= len(data)
        self._stdin_open = bool(data)
        self._port.send(wire.STDIN, _REQUEST, data)

    def _lost(self, stream: int, output: _Output) -> None:
        """Report to the guest that the output has no reader: the process gets EPIPE or SIGPIPE when it writes."""
        output.drop()
        if self._is_running:
            self._port.send(stream, _REQUEST)

    def _take_frames(self) -> None:
        while (frame := self._port.next_received()) is not None:
            kind, _, payload = frame
            try:
                self._take(kind, payload)
            except wire.FrameError as error:
                raise ProtocolError(f"the guest's agent sent {error}") from None

    def _take(self, kind: int, payload: bytes) -> None:
        is_first = kind in (wire.STARTED, wire.DONE)
        if is_first == self._is_running or self._status is not None:
            raise ProtocolError(f"the guest's agent sent frame {kind} out of turn")
        match kind:
            case wire.STARTED:
                self._is_running = True
                pid = wire.unpack_count(payload)
                if self._started is not None:
                    self._started(pid)
            case wire.STDOUT | wire.STDERR if payload:
                self._output[kind].add(payload)
            case wire.STDOUT | wire.STDERR:
                self._output[kind].end(close=self._owned)
            case wire.STDIN_TAKEN:
                self._window = min(self._window + wire.unpack_count(payload), wire.STDIN_WINDOW_BYTES)
            case wire.EXIT:
                self._is_running = False
                self._status = _status(payload)
            case wire.DONE:
                number, text = wire.unpack_done(payload)
                raise RefusedError(min(number, _ERRNO_MAX), text)
            case _:
                raise ProtocolError(f"the guest's agent sent frame {kind} to a command")


def _is_writable(fd: int) -> bool:
    """Whether a write would not block now."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(0))


def _status(payload: bytes) -> int:
    status = wire.unpack_status(payload)
    if not -_SIGNAL_MAX <= status <= _EXIT_MAX:
        raise wire.FrameError(f"an exit status of {status}")
    return status


class _Output:
    """A queue of output for one descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiting = bytearray()
        self.error: OSError | None = None
        self._is_lost = False
        self._has_ended = False
        self._is_closing = False

    def add(self, data: bytes) -> None:
        """Queue ``data``, unless the output has been dropped."""
        if not self._is_lost:
            self.waiting += data

    def write(self) -> bool:
        """Write as much as the descriptor takes without blocking; False if it has no reader any more."""
        try:
            del self.waiting[: os.write(self.fd, self.waiting[:_WRITE_BYTES])]
        except BlockingIOError:
            return True
        except OSError as error:
            self.error = error
            return False
        self._close_if_done()
        return True

    def end(self, *, close: bool) -> None:
        """Mark the end of the output; an owned descriptor is closed when the queue is written."""
        if not self._has_ended:
            self._has_ended = self._is_lost = True
            self._is_closing = close
            self._close_if_done()

    def drop(self) -> None:
        """Discard the queue and all further output."""
        self._is_lost = True
        self.waiting.clear()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closing and not self.waiting:
            self._is_closing = False
            os.close(self.fd)
