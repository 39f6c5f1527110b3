"""Relays the standard streams of a process in the guest to the host that is connected to a port."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from kata_runtime.guest import wire

if TYPE_CHECKING:
    from kata_runtime.guest.agent.guest_port import Port

_READ_BYTES = 32 * 1024
# More than a pseudo-terminal buffers: 64 KiB and a page (drivers/tty/tty_buffer.c: TTYB_DEFAULT_MEM_LIMIT).
_TERMINAL_BYTES = 128 * 1024
_F_GETPIPE_SZ = 1032  # include/uapi/linux/fcntl.h


class Streams:
    """Relays non-blocking descriptors: ``stdin`` is written; ``outputs`` are read, each with its kind of frame."""

    def __init__(self, port: Port, request: int, stdin: int, outputs: dict[int, int]) -> None:
        self._port = port
        self._request = request
        self._stdin_queue = bytearray()
        self._stdin_ends = False
        self.stdin = stdin
        self.outputs = outputs
        for fd in (stdin, *outputs):
            os.set_blocking(fd, False)

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

    def write_stdin(self) -> None:
        """Write as much of the queue as the pipe or terminal takes."""
        while self._stdin_queue and self.stdin >= 0:
            try:
                written = os.write(self.stdin, self._stdin_queue[: wire.STDIN_WINDOW_BYTES])
            except BlockingIOError:
                return
            except OSError:  # EPIPE; EIO of a terminal
                self._taken(len(self._stdin_queue))
                self._stdin_queue.clear()
                self.close_stdin()
                return
            del self._stdin_queue[:written]
            self._taken(written)
        if self._stdin_ends:
            self.close_stdin()

    def close_stdin(self) -> None:
        """Close the process's standard input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def wants_stdin(self) -> bool:
        """Whether queued input waits until the process reads."""
        return self.stdin >= 0 and bool(self._stdin_queue)

    def read_output(self, fd: int) -> None:
        """Send output to the host while the port has room."""
        while not self._port.is_full:
            data = _read(fd)
            if data is None:
                return
            self._port.send(self.outputs[fd], self._request, data)
            if not data:
                self._close_output(fd)
                return

    def output_of(self, kind: int) -> int | None:
        """The descriptor whose bytes become frames of ``kind``; None when it has ended."""
        return next((fd for fd, of in self.outputs.items() if of == kind), None)

    def drop_output(self, kind: int) -> None:
        """Close an output that the host no longer reads: the process gets SIGPIPE when it writes."""
        fd = self.output_of(kind)
        if fd is not None:
            self._close_output(fd)

    def _close_output(self, fd: int) -> None:
        del self.outputs[fd]
        os.close(fd)

    def finish(self, status: int) -> None:
        """Send the last output and the exit status, and close everything.

        An output that a grandchild still holds open is closed, too: waiting for its end could take forever.
        """
        for fd in list(self.outputs):
            self._drain_output(fd)
        self._port.send(wire.EXIT, self._request, wire.pack_count(status))
        self.abandon()

    def _drain_output(self, fd: int) -> None:
        """Send what is buffered now, and no more: a grandchild may keep writing."""
        left = _buffer_bytes(fd)
        while left > 0:
            data = _read(fd)
            if not data:
                return
            self._port.send(self.outputs[fd], self._request, data)
            left -= len(data)

    def abandon(self) -> None:
        """Close all descriptors."""
        self.close_stdin()
        for fd in list(self.outputs):
            self._close_output(fd)

    def _taken(self, count: int) -> None:
        if count:
            self._port.send(wire.STDIN_TAKEN, self._request, wire.pack_count(count))


def _read(fd: int) -> bytes | None:
    """The available bytes: None if there are none yet, empty at the end of the stream."""
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""  # EIO of a terminal that was hung up (vhangup(2))


def _buffer_bytes(fd: int) -> int:
    """How much a pipe or a terminal can buffer."""
    try:
        return fcntl.fcntl(fd, _F_GETPIPE_SZ)
    except OSError:
        return _TERMINAL_BYTES


def make_pipes() -> tuple[list[int], list[int]]:
    """Make three pipes for descriptors 0, 1 and 2: ``(the agent's ends, the process's ends)``."""
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for is_output in (False, True, True):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            ours.append(read_end if is_output else write_end)
            theirs.append(write_end if is_output else read_end)
    except OSError:
        close_all([*ours, *theirs])
        raise
    return ours, theirs


def close_all(descriptors: list[int]) -> None:
    """Close each of them."""
    for fd in descriptors:
        os.close(fd)
