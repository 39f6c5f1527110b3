"""The guest's end of a virtio-serial port: sends and receives frames without blocking, sees the host disconnect."""

from __future__ import annotations

import os
import select
from collections import deque

from kata_runtime.guest import wire

# virtio_console takes at most 32 KiB in a write (Linux 6.1, drivers/char/virtio_console.c); more would be copied twice.
_WRITE_BYTES = 32 * 1024
_READ_BYTES = 64 * 1024
# While this much waits for the host, answers pause and the output of processes is not read.
HIGH_WATER_BYTES = 512 * 1024


class Port:
    """One open port.

    The port must be polled edge-triggered: while no host is connected, virtio_console reports POLLHUP for
    ever, which level-triggered polling would turn into a busy loop.
    """

    def __init__(self, fd: int) -> None:
        """``fd`` reads and writes, and never blocks."""
        self.fd = fd
        self._decoder = wire.Decoder()
        self._outgoing: deque[memoryview] = deque()
        self._held = b""
        self.backlog = 0

    def receive(self) -> tuple[list[bytes], bool]:
        """All raw frames that have arrived, and whether no host is connected (a read of 0 bytes).

        The disconnection is reported through another queue and a kernel thread (control_work_handler), and can be
        late: frames of a new host can arrive before the disconnection of the previous one is reported.
        """
        frames: list[bytes] = []
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return frames, False
            except OSError:
                # For example ENODEV: the port is being unplugged, which is treated as a disconnected host.
                return frames, True
            if not data:
                return frames, True
            try:
                frames += self._decoder.feed(data)
            except wire.FrameError:
                # The decoder has discarded the bad frame; after the next END it decodes again.
                continue

    @property
    def is_full(self) -> bool:
        """Whether too much output waits for the host to add more; ``flush`` makes room."""
        return self.backlog >= HIGH_WATER_BYTES

    def is_connected(self) -> bool:
        """Whether a host is connected, as far as the kernel has been informed."""
        poller = select.poll()
        poller.register(self.fd, 0)
        return not any(events & select.POLLHUP for _, events in poller.poll(0))

    def send(self, kind: int, request: int, payload: bytes | memoryview = b"", *, more: bool = False) -> None:
        """Queue a frame and write as much as the port takes now; ``more``: together with the frame that follows."""
        frame = self._held + wire.pack_frame(kind, request, payload)
        self.backlog += len(frame) - len(self._held)
        self._held = b""
        if more and len(frame) < _WRITE_BYTES:
            self._held = frame
            return
        self._outgoing.append(memoryview(frame))
        self.flush()

    def greet(self, request: int, payload: bytes) -> None:
        """Answer a new client's HELLO; discards what was queued for the previous client."""
        self._outgoing.clear()
        self._held = b""
        self._outgoing.append(memoryview(wire.OPENING))
        self.backlog = len(wire.OPENING)
        self.send(wire.HELLO, request, payload[: wire.NONCE_BYTES] + wire.VERSION.to_bytes(2, "big"))

    def flush(self) -> None:
        """Write until the port is full or nothing is left; writes can be partial."""
        while self._outgoing:
            head = self._outgoing[0]
            try:
                written = os.write(self.fd, head[:_WRITE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self.drop()
                return
            self.backlog -= written
            if written == len(head):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = head[written:]

    def drop(self) -> None:
        """Discard the output that is queued for a disconnected host, and the partial frame received from it."""
        self._outgoing.clear()
        self._held = b""
        self.backlog = 0
        self._decoder.reset()
