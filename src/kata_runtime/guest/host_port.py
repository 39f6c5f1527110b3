"""The host's end of a virtio-serial port: frames with deadlines, resynchronised at connect."""

from __future__ import annotations

import os
import select
import time
from _socket import MSG_NOSIGNAL, SHUT_WR

from kata_runtime import operation_log, unix_socket
from kata_runtime.errors import ContainerError, DeadlineError, GuestError, KataError, LimitError, ProtocolError
from kata_runtime.guest import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Self
else:
    from _collections import deque

# A larger buffer would be mapped and unmapped for each read (mallopt(3), M_MMAP_THRESHOLD).
_READ_BYTES = 64 * 1024
_HELLO_SECONDS = 1.0
# QEMU notices the end of a connection within a millisecond, the agent a HELLO soon after; on a busy host, later.
_END_SECONDS = 1.0
_VERSION_BYTES = 2
_PAYLOAD_BYTES = wire.MAX_BODY_BYTES - 1024  # beside kind and request number
_HUNG = "the guest may be hung: see its console.log, or delete the container"
# A forced deletion ends the VM first: whether its files are there is not known when the connection ends.
_ENDED = "the end of its console.log says why, unless the container was deleted"
Frame = tuple[int, int, bytes]


class GuestPort:
    """A connection to one port of the agent.

    A read or write that would block waits in poll(2), never in the call itself, so that both directions
    always make progress: an agent with a full answer queue does not read.
    """

    def __init__(self, path: str, *, seconds: float = 10.0, deferred: bool = False) -> None:
        """Connect, and agree on a nonce within ``seconds``; ``deferred``: not before the first ``send`` or ``receive``.

        :raise ContainerError: nothing listens there.
        :raise DeadlineError: the agent does not answer. :raise GuestError: it is of another version, or gone.
        :raise ProtocolError: its answer is broken.
        """
        try:
            self._socket = unix_socket.connect(path, seconds)
        except TimeoutError:
            # QEMU serves another connection to this port, or stands still.
            raise DeadlineError("a connection to the guest's agent", seconds, hint=_HUNG) from None
        except OSError as error:
            raise ContainerError(
                f"cannot reach the container's agent: {error.strerror}", container="", hint="is its VM still running?"
            ) from None
        self._socket.setblocking(False)
        self._path = path
        self._seconds = seconds
        self._poller = select.poll()
        self._decoder = wire.Decoder()
        self._received: deque[bytes] = deque()
        self._outgoing: deque[memoryview] = deque()
        self._early: list[bytes] = []
        self._is_agreed = False
        self._ending: tuple[int, float] | None = None
        self._latest = float("inf")
        try:
            self._nonce = self._greet()
            if not deferred:
                self.agree()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(cancel=kind is not None)

    def close(self, *, cancel: bool = False) -> None:
        """Close the connection; the agent discards what it has for this connection, which ``cancel`` awaits before.

        QEMU closes its end first. A buffer of the guest that it cannot write completely, since the reader has left or
        is slow, it never returns when the connection ends (QEMU 7.2, hw/char/virtio-serial-bus.c,
        discard_throttle_data): after 128 such buffers nothing leaves the guest through this port any more. A command
        that is killed (SIGKILL) while the guest sends can still cost one.
        """
        deadline = time.monotonic() + min(_END_SECONDS, self._seconds)
        try:
            if cancel and self._is_agreed:
                self._outgoing.clear()
                self._early.clear()
                self._nonce = self._greet()
                self._await_hello(deadline)
            self._socket.shutdown(SHUT_WR)
            self._await_end(deadline)
        except (OSError, KataError):
            # QEMU has ended, or stands still, or the guest does not follow the protocol.
            pass
        finally:
            self._socket.close()

    def _await_end(self, deadline: float) -> None:
        """Read, and discard, until QEMU has closed its end; it does not while it stands still."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while (remaining := deadline - time.monotonic()) > 0 and poller.poll(remaining * 1000):
            if not self._socket.recv(_READ_BYTES):
                return

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    def end_waiting_after(self, fd: int, seconds: float) -> None:
        """Let every wait for a frame end ``seconds`` after ``fd``, such as a pidfd, has become readable."""
        self._ending = (fd, seconds)
        self._poller.register(fd, select.POLLIN)

    @property
    def sending(self) -> bool:
        """Whether bytes are queued that the port has not taken."""
        return bool(self._outgoing)

    def _greet(self) -> bytes:
        """Send a HELLO, and the early requests behind it; its nonce."""
        nonce = os.urandom(wire.NONCE_BYTES)
        hello = wire.pack_frame(wire.HELLO, 0, nonce)
        self._outgoing.append(memoryview(b"".join((wire.OPENING, hello, *self._early))))
        self.flush()
        return nonce

    def agree(self) -> None:
        """Wait for the agent's HELLO, if it has not come yet.

        :raise DeadlineError, GuestError, ProtocolError: as for the constructor.
        """
        if self._is_agreed:
            return
        with operation_log.measured("agent connection", path=self._path):
            version = self._await_version(time.monotonic() + self._seconds)
        if version != wire.VERSION:
            raise GuestError(
                f"the agent speaks version {version}, this runtime {wire.VERSION}",
                hint="build the guest image again (kata-runtime image build) and restart the container",
            )
        self._is_agreed = True

    def _await_version(self, deadline: float) -> int:
        timeout = _HELLO_SECONDS
        while True:
            # A HELLO is lost if the agent ends after reading it: then the next agent gets another.
            step = min(deadline, time.monotonic() + timeout)
            try:
                return self._await_hello(step)
            except DeadlineError as error:
                if step == deadline:
                    error.hint = _HUNG
                    raise
            # An agent that was only late answers the early requests twice; the nonce tells the first answers apart.
            # It may be late again.
            timeout *= 2 if self._early else 1
            self._nonce = self._greet()

    def _await_hello(self, deadline: float) -> int:
        """The version in the answer to our HELLO; frames before it were for a previous client and are discarded."""
        while True:
            self._await_frame(deadline, self._seconds, "an answer of the guest's agent")
            try:
                kind, _, payload = wire.unpack_body(self._received.popleft())
            except wire.FrameError:
                continue
            if kind == wire.HELLO and payload[: wire.NONCE_BYTES] == self._nonce:
                version = payload[wire.NONCE_BYTES :]
                if len(version) != _VERSION_BYTES:
                    raise ProtocolError(f"the guest's agent sent a version of {len(version)} bytes")
                return int.from_bytes(version, "big")

    def send(self, kind: int, request: int, payload: bytes = b"") -> None:
        """Queue a frame and send what the port takes now.

        :raise LimitError: the agent would discard it as too large.
        """
        if len(payload) > _PAYLOAD_BYTES:
            raise LimitError(
                f"a request of {len(payload) >> 10} KiB to the guest",
                limit=_PAYLOAD_BYTES,
                hint=f"{_PAYLOAD_BYTES >> 10} KiB are possible: shorten the command's arguments and environment",
            )
        self.agree()
        self._queue(wire.pack_frame(kind, request, payload))

    def send_early(self, kind: int, request: int, payload: bytes = b"") -> None:
        """``send``, without waiting for the agent's HELLO: for requests that may be carried out twice."""
        frame = wire.pack_frame(kind, request, payload)
        if not self._is_agreed:
            self._early.append(frame)
        self._queue(frame)

    def _queue(self, frame: bytes) -> None:
        self._outgoing.append(memoryview(frame))
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

    def receive(self, deadline: float, seconds: float, awaited: str) -> Frame:
        """The next frame, before ``deadline`` (of the monotonic clock; ``seconds`` is for the message only).

        :raise DeadlineError: none came. :raise GuestError: the VM ended. :raise ProtocolError: no frame.
        """
        self.agree()
        while True:
            self._await_frame(deadline, seconds, awaited)
            frame = self.next_received()
            if frame is not None:
                return frame

    def _await_frame(self, deadline: float, seconds: float, awaited: str) -> None:
        while not self._received:
            events = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
            self._poller.register(self._socket, events)
            remaining = min(deadline, self._latest) - time.monotonic()
            if remaining <= 0 or not (ready := self._poller.poll(remaining * 1000)):
                raise DeadlineError(awaited, seconds)
            if self._ending is not None and self._ending[0] in dict(ready):
                fd, left = self._ending
                self._poller.unregister(fd)
                self._ending, self._latest = None, time.monotonic() + left
            self.flush()
            self.fill()

    def next_received(self) -> Frame | None:
        """A frame that has been received already.

        :raise GuestError: the agent was restarted. :raise ProtocolError: the bytes are no frame.
        """
        while self._received:
            try:
                frame = wire.unpack_body(self._received.popleft())
            except wire.FrameError as error:
                raise ProtocolError(f"the guest's agent sent {error}") from None
            if frame[0] != wire.HELLO:
                return frame
            # A HELLO with a nonce answers one of ours that was repeated.
            if len(frame[2]) < wire.NONCE_BYTES:
                raise GuestError("the guest's agent ended and was restarted", hint="try again")
        return None

    def fill(self) -> None:
        """Read the available bytes. :raise GuestError: the VM ended. :raise ProtocolError: no frame."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise GuestError(f"the connection to the guest broke: {error.strerror}", hint="did its VM end?") from None
        if not data:
            raise GuestError("the guest's VM ended", hint=_ENDED)
        try:
            self._received += self._decoder.feed(data)
        except wire.FrameError as error:
            if self._is_agreed:
                raise ProtocolError(f"the guest's agent sent {error}") from None
