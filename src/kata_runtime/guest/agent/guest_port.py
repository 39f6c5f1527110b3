"""A virtio-serial port as the guest sees it: framed, non-blocking, aware of the host's coming and going."""

from __future__ import annotations

import os
import select
from collections import deque

from kata_runtime.guest import wire

# Linux 6.1 drivers/char/virtio_console.c takes at most 32 KiB a write; more would only be copied twice.
_WRITE_BYTES = 32 * 1024
_READ_BYTES = 64 * 1024
# With so much waiting for the host an answer pauses, and a process is not read from.
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
        self.backlog = 0

    def receive(self) -> tuple[list[bytes], bool]:
        """All raw frames that have arrived, and whether no host is connected (a read of 0 bytes).

        Disconnection is reported by another queue and a kernel thread (control_work_handler), and so can be late:
        a new host's frames can arrive before the end of the previous one is reported.
        """
        frames: list[bytes] = []
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return frames, False
            except OSError:
                # ENODEV and the like: the port is being unplugged; for us the same as a host that left.
                return frames, True
            if not data:
                return frames, True
            try:
                frames += self._decoder.feed(data)
            except wire.FrameError:
                # The decoder has dropped it; the next END starts a frame of a client that knows the rules.
                continue

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the host that nothing should be added; ``flush`` makes room."""
        return self.backlog >= HIGH_WATER_BYTES

    def is_connected(self) -> bool:
        """Whether a host is connected, as far as the kernel knows by now."""
        poller = select.poll()
        poller.register(self.fd, 0)
        return not any(events & select.POLLHUP for _, events in poller.poll(0))

    def send(self, kind: int, request: int, payload: bytes | memoryview = b"") -> None:
        """Queue a frame and write what the port takes now."""
        frame = wire.pack_frame(kind, request, payload)
        self._outgoing.append(memoryview(frame))
        self.backlog += len(frame)
        self.flush()

    def greet(self, request: int, payload: bytes) -> None:
        """Answer a new client's HELLO; nothing that was meant for its predecessor follows."""
        self._outgoing.clear()
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
        """Discard the output that is queued for a disconnected host, and its partial frame."""
        self._outgoing.clear()
        self.backlog = 0
        self._decoder.reset()
