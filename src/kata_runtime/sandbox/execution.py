"""A command in the container, with this process's standard streams and signals."""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from kata_runtime.errors import ContainerError, GuestError, LimitError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.guest.port import GuestPort
from kata_runtime.sandbox import paths
from kata_runtime.sandbox.lock import LockFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGCONT, signal.SIGWINCH,
)  # fmt: skip
# poll(2) promises that a pipe takes PIPE_BUF bytes without blocking, not more.
_WRITE_BYTES = select.PIPE_BUF
_READ_BYTES = 32 * 1024
# While this much waits for a slow reader of ours, nothing more is taken from the guest.
_BACKLOG_BYTES = 256 * 1024


def execute(directory: str, container_id: str, argv: Sequence[str]) -> int:
    """Run ``argv``; its exit status, 128 + N when signal N ended it.

    :raise LimitError: every port is in use. :raise GuestError: it cannot be started, or the VM ended.
    """
    with ExitStack() as stack:
        number = stack.enter_context(_free_port(directory, container_id))
        wakeup = stack.enter_context(_forwarded_signals())
        port = GuestPort(os.path.join(directory, paths.exec_socket(number)))
        stack.callback(port.close)
        return _Relay(port, argv[0], wakeup).run(argv)


@contextmanager
def _free_port(directory: str, container_id: str) -> Iterator[int]:
    for number in range(paths.RUNTIME_EXEC_PORT):
        try:
            lock = LockFile(os.path.join(directory, paths.exec_lock(number)))
        except FileNotFoundError:
            raise ContainerError(f"container {container_id} was deleted meanwhile", container=container_id) from None
        try:
            if lock.try_acquire():
                yield number
                return
        finally:
            lock.close()
    limit = paths.RUNTIME_EXEC_PORT
    raise LimitError(
        f"{limit} commands run in container {container_id}, the limit",
        limit=limit,
        hint="wait until one ends",
    )


@contextmanager
def _forwarded_signals() -> Iterator[int]:
    """A descriptor on which the numbers of arriving signals can be read."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, _ignore) for number in _FORWARDED}
    previous = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


def _ignore(number: int, frame: object) -> None:
    # Its number arrives through the wake-up descriptor.
    del number, frame


class _Relay:
    """Moves bytes between our descriptors 0, 1, 2 and the port until the command ends."""

    def __init__(self, port: GuestPort, name: str, wakeup: int) -> None:
        self._port = port
        self._name = name
        self._wakeup = wakeup
        self._started = False
        self._stdin_open = True
        self._window = wire.STDIN_WINDOW_BYTES
        self._output = {1: bytearray(), 2: bytearray()}
        self._status: int | None = None

    def run(self, argv: Sequence[str]) -> int:
        """Start ``argv`` and stay until it has ended and all it wrote is written."""
        self._port.send(wire.EXEC, 1, json.dumps({"argv": list(argv)}).encode())
        while self._status is None or any(self._output.values()):
            ready = self._wait()
            if self._wakeup in ready:
                self._forward()
            if 0 in ready:
                self._read_stdin()
            for fd in (1, 2):
                if fd in ready and not self._write(fd):
                    return 128 + signal.SIGPIPE
            if self._port.fileno() in ready:
                self._port.flush()
                self._port.fill()
                self._take_frames()
        return self._status if self._status >= 0 else 128 - self._status

    def _wait(self) -> set[int]:
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        if self._status is None:
            full = sum(map(len, self._output.values())) > _BACKLOG_BYTES
            events = (0 if full else select.POLLIN) | (select.POLLOUT if self._port.sending else 0)
            poller.register(self._port, events)
            if self._started and self._stdin_open and self._window:
                poller.register(0, select.POLLIN)
        for fd, waiting in self._output.items():
            if waiting:
                poller.register(fd, select.POLLOUT)
        return {fd for fd, _ in poller.poll()}

    def _forward(self) -> None:
        for number in os.read(self._wakeup, 64):
            if self._status is None:
                self._port.send(wire.SIGNAL, 1, bytes([number]))

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, min(self._window, _READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a directory, or a terminal that went away: as good as its end
        self._window -= len(data)
        self._stdin_open = bool(data)
        self._port.send(wire.STDIN, 1, data)

    def _write(self, fd: int) -> bool:
        """False when nobody reads any more: the command then ends as it would in a pipe."""
        waiting = self._output[fd]
        try:
            del waiting[: os.write(fd, waiting[:_WRITE_BYTES])]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _take_frames(self) -> None:
        while (frame := self._port.next_received()) is not None:
            kind, _, payload = frame
            try:
                self._take(kind, payload)
            except wire.FrameError as error:
                raise ProtocolError(f"the guest's agent sent {error}") from None

    def _take(self, kind: int, payload: bytes) -> None:
        match kind:
            case wire.STARTED:
                self._started = True
            case wire.STDOUT:
                self._output[1] += payload
            case wire.STDERR:
                self._output[2] += payload
            case wire.STDIN_TAKEN:
                self._window = min(self._window + wire.unpack_count(payload), wire.STDIN_WINDOW_BYTES)
            case wire.EXIT:
                self._status = wire.unpack_status(payload)
            case wire.DONE:
                number, text = wire.unpack_done(payload)
                raise GuestError(f"cannot run {self._name!a} in the container: {text or os.strerror(number)}")
            case _:
                raise ProtocolError(f"the guest's agent sent frame {kind} to a command")
