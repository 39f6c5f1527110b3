"""Runs a command in the container, with this process's standard streams and signals."""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime import fast_signal as signal
from kata_runtime.errors import ContainerError, GuestError, LimitError
from kata_runtime.fast_contextlib import ExitStack, contextmanager
from kata_runtime.guest import wire
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.sandbox.lock import LockFile
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths
from kata_runtime.sandbox.stream_relay import RefusedError, Relay, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGCONT, signal.SIGWINCH,
)  # fmt: skip


def execute(directory: str, container_id: str, argv: Sequence[str]) -> int:
    """Run ``argv``; its exit status, 128 + N when signal N ended it.

    :raise LimitError: every port is in use. :raise GuestError: it cannot be started, or the VM ended.
    :raise HostError: it succeeded, but its output could not be written.
    """
    with ExitStack() as stack:
        number = stack.enter_context(free_port(directory, container_id))
        wakeup = stack.enter_context(forwarded_signals())
        port = stack.enter_context(GuestPort(SandboxPaths(directory).exec_socket(number)))
        relay = Relay(port, Streams(0, 1, 2), owned=False)
        relay.watch(wakeup, lambda: _forward(relay, wakeup))
        try:
            status = relay.run(wire.EXEC, fast_json.dumps({"argv": list(argv)}).encode())
        except RefusedError as error:
            raise GuestError(f"cannot run {argv[0]!a} in the container: {error.message}") from None
        if not status:
            relay.require_stdout()
        return status


def _forward(relay: Relay, wakeup: int) -> None:
    for number in os.read(wakeup, 64):
        relay.signal(number)


@contextmanager
def free_port(directory: str, container_id: str) -> Iterator[int]:
    """Reserve an exec port of the sandbox until the block ends; returns its number.

    :raise LimitError: every port is in use. :raise ContainerError: the sandbox was deleted.
    """
    for number in range(RUNTIME_EXEC_PORT):
        try:
            lock = LockFile(SandboxPaths(directory).exec_lock(number))
        except FileNotFoundError:
            raise ContainerError(f"container {container_id} was deleted meanwhile", container=container_id) from None
        try:
            if lock.try_acquire():
                yield number
                return
        finally:
            lock.close()
    limit = RUNTIME_EXEC_PORT
    raise LimitError(
        f"{limit} commands run in container {container_id}, the limit",
        limit=limit,
        hint="wait until one ends",
    )


@contextmanager
def forwarded_signals() -> Iterator[int]:
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
    # The handler does nothing: the number is read from the wake-up descriptor.
    del number, frame
