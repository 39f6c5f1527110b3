"""The control channel to a guest's agent: netlink, notifications, sysctl, short commands, shutdown."""

from __future__ import annotations

import os
import time

from kata_runtime import fast_json, operation_log
from kata_runtime.errors import DeadlineError, GuestError, KernelError, ProtocolError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.guest import wire
from kata_runtime.guest.answer_limits import DEFAULT, FRAME_BYTES
from kata_runtime.guest.host_port import Frame, GuestPort
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange_logging import recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kata_runtime.guest.answer_limits import Limits
    from kata_runtime.netlink.transport import Block, Family
else:
    from _collections import deque

# How many blocks are in flight: the kernel works on one while others cross the port.
_WINDOW_BLOCKS = 4


class Completed(NamedTuple):
    """How a command in the guest ended; ``exit_status`` is negative for a signal."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Subscription:
    """Notifications of one netlink multicast group, from the moment it is made."""

    def __init__(self, channel: AgentChannel, request: int) -> None:
        self._channel = channel
        self._request = request

    def wait(self, accept: Callable[[bytes], bool], seconds: float, awaited: str) -> None:
        """Return when ``accept`` is true of a datagram.

        :raise DeadlineError: none came within ``seconds``; names ``awaited``.
        """
        deadline = time.monotonic() + seconds
        with operation_log.measured("netlink notification", awaited=awaited):
            while not accept(self._channel.next_notification(self._request, deadline, seconds, awaited)):
                continue


class AgentChannel:
    """Implements ``netlink.transport.Transport`` against the guest's kernel."""

    def __init__(self, control_path: str, exec_path: str, limits: Limits = DEFAULT) -> None:
        """``exec_path`` is the port kept for ``run``; it is connected on first use.

        :raise ContainerError, DeadlineError, GuestError, ProtocolError: as for ``GuestPort``.
        """
        self._control_path = control_path
        self._exec_path = exec_path
        self._limits = limits
        self._port: GuestPort | None = GuestPort(control_path, seconds=limits.connect_seconds)
        self._request = 0
        self._notifications: dict[int, deque[bytes]] = {}
        self._kept_bytes = 0

    def close(self) -> None:
        """Close the connection; the agent forgets its subscriptions."""
        if self._port is not None:
            self._port.close()
            self._port = None
            self._notifications.clear()
            self._kept_bytes = 0

    def _connected(self) -> GuestPort:
        # An exchange that was given up leaves answers behind; a new connection's nonce separates from them.
        if self._port is None:
            self._port = GuestPort(self._control_path, seconds=self._limits.connect_seconds)
        return self._port

    def _next_request(self) -> int:
        self._request = self._request % 0xFFFFFFFF + 1
        return self._request

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Pipeline ``blocks``; yield their answers in order, in the pieces in which they come.

        :raise KernelError: the guest's kernel refused the block as a whole (no such family, no buffer).
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        return recorded("guest", self._exchange, family, blocks)

    def _exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        packed = (
            wire.pack_netlink(family, block.last_sequence, block.data, one_by_one=block.one_by_one) for block in blocks
        )
        return self._pipelined(wire.NETLINK, packed, "netlink in the guest")

    def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """Socket options of IPv4 in the guest, pipelined; ``asked`` are sizes of answers and arguments for the kernel.

        Yields the answers in order, each of its size, in the pieces in which they come.

        :raise KernelError: the guest's kernel refused one, or its agent is too old to ask.
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        packed = (wire.pack_options(number, block) for block in asked)
        with operation_log.measured("socket options in the guest", option=number) as step:
            size = 0
            for part in self._pipelined(wire.OPTIONS, packed, "reading a socket option in the guest"):
                size += len(part)
                yield part
            step.note(bytes_received=size)

    def _pipelined(self, kind: int, payloads: Iterable[bytes], operation: str) -> Iterator[bytes]:
        """Send requests of one kind, some ahead; yield what is answered to them, in order."""
        port = self._connected()
        budget = _Budget(self._limits.answer_bytes)
        deadline = time.monotonic() + self._limits.exchange_seconds
        remaining = iter(payloads)
        under_way: deque[int] = deque()
        exhausted = False
        complete = False
        try:
            while True:
                while not exhausted and len(under_way) < _WINDOW_BLOCKS:
                    payload = next(remaining, None)
                    if payload is None:
                        exhausted = True
                        break
                    request = self._next_request()
                    port.send(kind, request, payload)
                    under_way.append(request)
                if not under_way:
                    complete = True
                    return
                yield from self._parts(port, under_way[0], operation, budget, deadline)
                under_way.popleft()
        finally:
            if not complete:
                self.close()

    def _parts(
        self, port: GuestPort, request: int, operation: str, budget: _Budget, last_moment: float
    ) -> Iterator[bytes]:
        """The DATA of an answer, up to its DONE, which must come before ``last_moment``."""
        seconds = self._limits.answer_seconds
        deadline = min(time.monotonic() + seconds, last_moment)
        while True:
            kind, of, payload = self._receive(port, deadline, seconds, "the guest kernel's answer")
            if of != request or kind not in (wire.DATA, wire.DONE):
                raise ProtocolError(f"the guest's agent sent frame {kind} for request {of} out of turn")
            if kind == wire.DONE:
                number, text = _unpack_done(payload)
                if number:
                    raise KernelError(operation, number, text)
                return
            budget.take(payload)
            yield payload

    def read_file(self, name: str) -> Iterator[bytes]:
        """A file of the guest's /proc/net, in pieces as they come.

        :raise KernelError: ENOENT where there is none.
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        port = self._connected()
        request = self._next_request()
        complete = False
        try:
            with operation_log.measured("file in the guest", path=f"/proc/net/{name}") as step:
                port.send(wire.READ, request, name.encode())
                size = 0
                budget = _Budget(self._limits.answer_bytes)
                operation = f"reading /proc/net/{name} in the guest"
                for part in self._parts(
                    port, request, operation, budget, time.monotonic() + self._limits.answer_seconds
                ):
                    size += len(part)
                    yield part
                step.note(bytes_received=size)
            complete = True
        except KernelError:
            complete = True
            raise
        finally:
            if not complete:
                self.close()

    def _receive(self, port: GuestPort, deadline: float, seconds: float, awaited: str) -> Frame:
        """The next frame that is no notification; those are kept."""
        while True:
            kind, request, payload = port.receive(deadline, seconds, awaited)
            if kind != wire.NOTIFY:
                return kind, request, payload
            kept = self._notifications.get(request)
            if kept is not None:
                kept.append(payload)
                self._kept_bytes += len(payload)
                if len(kept) > self._limits.notifications or self._kept_bytes > self._limits.notification_bytes:
                    raise ProtocolError("the guest sent more notifications than are kept")

    def _ask(self, kind: int, payload: bytes, operation: str) -> str:
        seconds = self._limits.request_seconds
        port = self._connected()
        request = self._next_request()
        try:
            port.send(kind, request, payload)
            answered, of, body = self._receive(port, time.monotonic() + seconds, seconds, f"{operation} in the guest")
            if answered != wire.DONE or of != request:
                raise ProtocolError(f"the guest's agent sent frame {answered} out of turn")
            number, text = _unpack_done(body)
        except BaseException:
            self.close()
            raise
        if number:
            raise KernelError(operation, number, text)
        return text

    @contextmanager
    def subscribe(self, family: Family, group: int) -> Iterator[Subscription]:
        """Notifications of a multicast group while the context lasts."""
        with operation_log.measured("netlink subscription", family=family.name, group=group):
            self._ask(wire.SUBSCRIBE, wire.pack_target(family, group), "subscribing to kernel notifications")
        request = self._request
        self._notifications[request] = deque()
        port = self._port
        try:
            yield Subscription(self, request)
        finally:
            self._kept_bytes -= sum(map(len, self._notifications.pop(request, ())))
            if self._port is port and port is not None:
                self._request -= 1
                self._unsubscribe(port, request)

    def _unsubscribe(self, port: GuestPort, request: int) -> None:
        # The agent forgets all subscriptions with the connection: dropping it is as good as asking.
        try:
            port.send(wire.UNSUBSCRIBE, request)
            seconds = self._limits.farewell_seconds
            self._receive(port, time.monotonic() + seconds, seconds, "the end of a subscription")
        except (DeadlineError, GuestError, ProtocolError):
            self.close()
        self._request = request

    def next_notification(self, request: int, deadline: float, seconds: float, awaited: str) -> bytes:
        """The next datagram of a subscription, before ``deadline`` of the monotonic clock."""
        kept = self._notifications.get(request)
        if kept is None:
            raise GuestError("a subscription to the guest's notifications ended with its connection", hint="try again")
        if not kept:
            kind, of, payload = self._connected().receive(deadline, seconds, awaited)
            if kind != wire.NOTIFY or of != request:
                raise ProtocolError(f"the guest's agent sent frame {kind} while a notification was awaited")
            return payload
        taken = kept.popleft()
        self._kept_bytes -= len(taken)
        return taken

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read (or set, then read) a sysctl by its path below /proc/sys, e.g. ``net/ipv4/ip_forward``.

        :raise KernelError: ENOENT where the kernel lacks it, EINVAL for a value it refuses.
        """
        payload = name.encode() if value is None else f"{name}\0{value}".encode()
        with operation_log.measured("sysctl", name=name, value=value) as step:
            found = self._ask(wire.SYSCTL, payload, f"sysctl {name}")
            step.note(answer=found)
            return found

    def renew(self, host_name: str) -> None:
        """Give the guest fresh randomness, the time of day, a host name and a machine ID of its own.

        :raise KernelError: the guest's kernel refused one. :raise GuestError, DeadlineError: the channel failed.
        """
        payload = wire.pack_renewal(os.urandom(wire.SEED_BYTES), time.time_ns(), host_name)
        self._ask(wire.RENEW, payload, "renewing the guest's identity")

    def shutdown(self) -> None:
        """Ask the guest to end its processes and power off."""
        with operation_log.measured("shutdown"):
            self._ask(wire.SHUTDOWN, b"", "shutdown")

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0) -> Completed:
        """Run a short command in the guest, on the port kept for the runtime's own use.

        :raise GuestError: it cannot be started. :raise DeadlineError: it ran longer than ``seconds``.
        """
        return run_command(self._exec_path, argv, stdin, seconds=seconds, limits=self._limits)


def run_command(path: str, argv: Sequence[str], stdin: bytes = b"", *, seconds: float, limits: Limits) -> Completed:
    """Run a short command in the guest, on the exec port behind the socket ``path``, which nobody else uses.

    :raise GuestError: it cannot be started. :raise DeadlineError: it ran longer than ``seconds``.
    """

    with operation_log.measured("run in the guest", argv=list(argv)) as step:
        port = GuestPort(path, seconds=limits.connect_seconds)
        try:
            port.send(wire.EXEC, 1, fast_json.dumps({"argv": list(argv)}).encode())
            done = _collect(port, argv[0], stdin, seconds, limits.output_bytes)
        finally:
            port.close()
        step.note(exit_status=done.exit_status, bytes_received=len(done.stdout) + len(done.stderr))
        return done


class _Budget:
    """How many bytes of an answer may still arrive; each frame counts its payload and an overhead."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def take(self, payload: bytes) -> None:
        """Count a frame.

        :raise ProtocolError: the answer is too large.
        """
        self._left -= len(payload) + FRAME_BYTES
        if self._left < 0:
            raise ProtocolError(f"the guest answered with more than {self._size >> 20} MiB")


def _collect(port: GuestPort, name: str, stdin: bytes, seconds: float, limit: int) -> Completed:
    try:
        return _converse(port, name, stdin, seconds, limit)
    except wire.FrameError as error:
        raise _broken(error) from None


def _converse(port: GuestPort, name: str, stdin: bytes, seconds: float, limit: int) -> Completed:
    deadline = time.monotonic() + seconds
    output = {wire.STDOUT: bytearray(), wire.STDERR: bytearray()}
    offset = 0
    window = wire.STDIN_WINDOW_BYTES
    while True:
        kind, _, payload = port.receive(deadline, seconds, f"the end of {name} in the guest")
        match kind:
            case wire.DONE:
                number, text = wire.unpack_done(payload)
                raise GuestError(f"cannot run {name} in the guest: {text or os.strerror(number)}")
            case wire.EXIT:
                status = wire.unpack_status(payload)
                return Completed(status, bytes(output[wire.STDOUT]), bytes(output[wire.STDERR]))
            case wire.STDOUT | wire.STDERR:
                output[kind] += payload
                if len(output[kind]) > limit:
                    raise GuestError(f"{name} in the guest printed more than {limit >> 10} KiB")
                continue
            case wire.STDIN_TAKEN:
                window = min(window + wire.unpack_count(payload), wire.STDIN_WINDOW_BYTES)
            case wire.STARTED:
                pass
            case _:
                raise ProtocolError(f"the guest's agent sent frame {kind} to a command")
        while window and offset < len(stdin):
            chunk = stdin[offset : offset + window]
            port.send(wire.STDIN, 1, chunk)
            offset, window = offset + len(chunk), window - len(chunk)
        if offset == len(stdin):
            port.send(wire.STDIN, 1)
            offset += 1


def _unpack_done(payload: bytes) -> tuple[int, str]:
    try:
        return wire.unpack_done(payload)
    except wire.FrameError as error:
        raise _broken(error) from None


def _broken(error: wire.FrameError) -> ProtocolError:
    return ProtocolError(f"the guest's agent sent {error}")
