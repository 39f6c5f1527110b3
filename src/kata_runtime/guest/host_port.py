"""The host's end of a virtio-serial port: frames with deadlines, resynchronised at connect."""

from __future__ import annotations

import os
import select
import time
from _socket import MSG_NOSIGNAL

from kata_runtime import operation_log, unix_socket
from kata_runtime.errors import ContainerError, DeadlineError, GuestError, ProtocolError
from kata_runtime.guest import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
else:
    from _collections import deque

_READ_BYTES = 256 * 1024
_HELLO_SECONDS = 1.0
_VERSION_BYTES = 2
Frame = tuple[int, int, bytes]


class GuestPort:
    """A connection to one port of the agent.

    A read or write that would block waits in poll(2), never in the call itself, so that both directions
    always make progress: an agent with a full answer queue does not read.
    """

    def __init__(self, path: str, *, seconds: float = 10.0) -> None:
        """Connect and agree on a nonce within ``seconds``.

        :raise ContainerError: nothing listens there.
        :raise DeadlineError: the agent does not answer. :raise GuestError: it is of another version, or gone.
        :raise ProtocolError: its answer is broken.
        """
        try:
            self._socket = unix_socket.connect(path, seconds)
        except OSError as error:
            raise ContainerError(
                f"cannot reach the container's agent: {error.strerror}", container="", hint="is its VM still running?"
            ) from None
        self._socket.setblocking(False)
        self._poller = select.poll()
        self._decoder = wire.Decoder()
        self._received: deque[Frame] = deque()
        self._outgoing: deque[memoryview] = deque()
        try:
            with operation_log.measured("agent connection", path=path):
                self._synchronise(seconds)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection; the agent drops what it holds for us."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether bytes are queued that the port has not taken."""
        return bool(self._outgoing)

    def _synchronise(self, seconds: float) -> None:
        nonce = os.urandom(wire.NONCE_BYTES)
        deadline = time.monotonic() + seconds
        while True:
            self._outgoing.append(memoryview(wire.OPENING))
            self.send(wire.HELLO, 0, nonce)
            # A HELLO can be lost with an agent that ends having read it: then its successor gets another.
            step = min(deadline, time.monotonic() + _HELLO_SECONDS)
            try:
                version = self._await_hello(nonce, step, seconds)
            except DeadlineError as error:
                if step < deadline:
                    continue
                error.hint = "the guest may be hung: see its console.log, or delete the container"
                raise
            if version != wire.VERSION:
                raise GuestError(
                    f"the agent speaks version {version}, this runtime {wire.VERSION}",
                    hint="build the guest image again (kata-runtime image build) and restart the container",
                )
            return

    def _await_hello(self, nonce: bytes, deadline: float, seconds: float) -> int:
        """The version in the answer to our HELLO; whatever else comes was meant for a predecessor."""
        while True:
            kind, _, payload = self.receive(deadline, seconds, "an answer of the guest's agent", strict=False)
            if kind == wire.HELLO and payload[: wire.NONCE_BYTES] == nonce:
                version = payload[wire.NONCE_BYTES :]
                if len(version) != _VERSION_BYTES:
                    raise ProtocolError(f"the guest's agent sent a version of {len(version)} bytes")
                return int.from_bytes(version, "big")

    def send(self, kind: int, request: int, payload: bytes = b"") -> None:
        """Queue a frame and send what the port takes now."""
        self._outgoing.append(memoryview(wire.pack_frame(kind, request, payload)))
        self.flush()

    def flush(self) -> None:
        """Send until the port is full or nothing is left.

        :raise GuestError: the connection broke.
        """
        try:
            while self._outgoing:
                head = self._outgoing[0]
                sent = self._socket.send(head, MSG_NOSIGNAL)
                if sent == len(head):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = head[sent:]
        except BlockingIOError:
            return
        except OSError as error:
            raise GuestError(f"the connection to the guest broke: {error.strerror}", hint="did its VM end?") from None

    def receive(self, deadline: float, seconds: float, awaited: str, *, strict: bool = True) -> Frame:
        """The next frame, before ``deadline`` (of the monotonic clock; ``seconds`` is only for the error message).

        :raise DeadlineError: none came. :raise GuestError: the VM ended. :raise ProtocolError: no frame.
        """
        while not self._received:
            events = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
            self._poller.register(self._socket, events)
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not self._poller.poll(remaining * 1000):
                raise DeadlineError(awaited, seconds)
            self.flush()
            self.fill(strict=strict)
        return self._received.popleft()

    def next_received(self) -> Frame | None:
        """A frame that has already arrived."""
        return self._received.popleft() if self._received else None

    def fill(self, *, strict: bool = True) -> None:
        """Read what is there now. :raise GuestError: the VM ended. :raise ProtocolError: no frame."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise GuestError(f"the connection to the guest broke: {error.strerror}", hint="did its VM end?") from None
        if not data:
            raise GuestError("the guest's VM ended", hint="see the container's console.log")
        try:
            for raw in self._decoder.feed(data):
                try:
                    frame = wire.unpack_body(raw)
                except wire.FrameError:
                    if strict:
                        raise
                    continue
                if strict and frame[0] == wire.HELLO:
                    # With a nonce it answers a HELLO of ours that was repeated.
                    if len(frame[2]) < wire.NONCE_BYTES:
                        raise GuestError("the guest's agent ended and was started anew", hint="try again")
                    continue
                self._received.append(frame)
        except wire.FrameError as error:
            if strict:
                raise ProtocolError(f"the guest's agent sent {error}") from None
