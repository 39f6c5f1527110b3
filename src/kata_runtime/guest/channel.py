"""The control channel to a guest's agent: netlink, notifications, sysctl, short commands, shutdown."""

from __future__ import annotations

import os
import time

from kata_runtime import operation_log
from kata_runtime.errors import GuestError, KernelError, ProtocolError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.guest import wire
from kata_runtime.guest.answer_limits import DEFAULT, Budget
from kata_runtime.guest.host_port import Frame, GuestPort
from kata_runtime.guest.netlink_block import pack_netlink
from kata_runtime.netlink.exchange_logging import recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kata_runtime.guest.answer_limits import Limits
    from kata_runtime.guest.short_command import Completed
    from kata_runtime.guest.subscription import Subscription
    from kata_runtime.netlink.transport import Block, Family
else:
    from _collections import deque

# How many blocks are sent ahead: the kernel works on one while others cross the port.
_WINDOW_BLOCKS = 4


class AgentChannel:
    """Implements ``netlink.transport.Transport`` against the guest's kernel."""

    def __init__(self, control_path: str, exec_path: str, limits: Limits = DEFAULT) -> None:
        """``exec_path`` is the port kept for ``run``; it is connected on first use.

        :raise ContainerError, GuestError: there is no connection.
        Whether the agent answers is known after the first request.
        """
        self._control_path = control_path
        self._exec_path = exec_path
        self._limits = limits
        self._port: GuestPort | None = None
        self._request = 0
        self._unanswered = 0
        # Subscriptions that the agent has not confirmed yet, and those that it was asked to end.
        self._unconfirmed: set[int] = set()
        self._ended: set[int] = set()
        self._notifications: dict[int, deque[bytes]] = {}
        self._kept_bytes = 0
        self._connected()

    def close(self) -> None:
        """Close the connection; the agent discards answers that are not complete, and ends its subscriptions."""
        if self._port is not None:
            self._port.close(cancel=self._unanswered > 0)
            self._port = None
            self._unanswered = 0
            self._notifications.clear()
            self._unconfirmed.clear()
            self._ended.clear()
            self._kept_bytes = 0

    def _connected(self) -> GuestPort:
        # Late answers to an abandoned exchange may still arrive; the nonce of a new connection separates them.
        if self._port is None:
            self._port = GuestPort(self._control_path, seconds=self._limits.connect_seconds, deferred=True)
        return self._port

    def _next_request(self) -> int:
        self._unanswered += 1
        self._request = self._request % 0xFFFFFFFF + 1
        return self._request

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Pipeline ``blocks``; yield their answers in order, in pieces as they arrive.

        The first blocks are sent at once, also when nothing of the answer is taken yet.

        :raise KernelError: the guest's kernel refused the block as a whole (no such family, no buffer).
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        return recorded("guest", self._exchange, family, blocks)

    def _exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        def packed(block: Block) -> tuple[bytes, bool]:
            payload = pack_netlink(family, block.last_sequence, block.data, one_by_one=block.one_by_one)
            return payload, block.one_by_one or block.repeatable

        return self._pipelined(wire.NETLINK, map(packed, blocks), "netlink in the guest")

    def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """Socket options of IPv4 in the guest, pipelined; ``asked`` are sizes of answers and arguments for the kernel.

        Yields the answers in order, each of its size, in pieces as they arrive.

        :raise KernelError: the guest's kernel refused one, or its agent is too old for the request.
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        packed = ((wire.pack_options(number, block), True) for block in asked)
        with operation_log.measured("socket options in the guest", option=number) as step:
            size = 0
            for part in self._pipelined(wire.OPTIONS, packed, "reading a socket option in the guest"):
                size += len(part)
                yield part
            step.note(bytes_received=size)

    def _pipelined(self, kind: int, payloads: Iterable[tuple[bytes, bool]], operation: str) -> Iterator[bytes]:
        """Send requests of one kind, some ahead; yield their answers in order.

        Each payload is paired with whether the request may be carried out twice.
        """
        remaining = iter(payloads)
        under_way: deque[int] = deque()
        try:
            port = self._connected()
            self._send_ahead(port, kind, remaining, under_way)
        except BaseException:
            self.close()
            raise
        return self._answers(port, kind, remaining, under_way, operation)

    def _send_ahead(
        self, port: GuestPort, kind: int, remaining: Iterator[tuple[bytes, bool]], under_way: deque[int]
    ) -> None:
        while len(under_way) < _WINDOW_BLOCKS and (following := next(remaining, None)) is not None:
            payload, repeatable = following
            request = self._next_request()
            (port.send_early if repeatable else port.send)(kind, request, payload)
            under_way.append(request)

    def _answers(
        self,
        port: GuestPort,
        kind: int,
        remaining: Iterator[tuple[bytes, bool]],
        under_way: deque[int],
        operation: str,
    ) -> Iterator[bytes]:
        budget = Budget(self._limits.answer_bytes)
        deadline = time.monotonic() + self._limits.exchange_seconds
        complete = False
        try:
            while under_way:
                yield from self._parts(port, under_way[0], operation, budget, deadline)
                under_way.popleft()
                self._send_ahead(port, kind, remaining, under_way)
            complete = True
        finally:
            if not complete:
                self.close()

    def _parts(self, port: GuestPort, request: int, operation: str, budget: Budget, latest: float) -> Iterator[bytes]:
        """The DATA of an answer, up to its DONE, which must come before ``latest``."""
        seconds = self._limits.answer_seconds
        deadline = min(time.monotonic() + seconds, latest)
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
        """A file of the guest's /proc/net, or /proc/modules, in pieces as they arrive.

        :raise KernelError: ENOENT where there is none.
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        port = self._connected()
        request = self._next_request()
        complete = False
        try:
            with operation_log.measured("file in the guest", path=wire.proc_file(name)) as step:
                port.send_early(wire.READ, request, name.encode())
                size = 0
                budget = Budget(self._limits.answer_bytes)
                operation = f"reading {wire.proc_file(name)} in the guest"
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
        """The next frame that is not about a subscription."""
        while True:
            frame = port.receive(deadline, seconds, awaited)
            if not self._is_of_subscription(frame):
                self._unanswered -= frame[0] == wire.DONE
                return frame

    def _is_of_subscription(self, frame: Frame) -> bool:
        """Whether a frame is about a subscription; if so, it has been handled: notifications are kept."""
        kind, request, payload = frame
        if kind == wire.DONE and request in self._unconfirmed:
            self._unconfirmed.remove(request)
            self._unanswered -= 1
            number, text = _unpack_done(payload)
            if number:
                raise KernelError("subscribing to kernel notifications", number, text)
            return True
        if kind != wire.NOTIFY:
            return kind == wire.DONE and request in self._ended
        kept = self._notifications.get(request)
        if kept is not None:
            kept.append(payload)
            self._kept_bytes += len(payload)
            if len(kept) > self._limits.notifications or self._kept_bytes > self._limits.notification_bytes:
                raise ProtocolError("the guest sent more notifications than are kept")
        return True

    def _ask(self, kind: int, payload: bytes, operation: str) -> str:
        (answer,) = self._ask_all(kind, [payload], [operation])()
        if isinstance(answer, KernelError):
            raise answer
        return answer

    def _ask_all(
        self, kind: int, payloads: Sequence[bytes], operations: Sequence[str]
    ) -> Callable[[], list[str | KernelError]]:
        """Send requests of one kind; what is returned takes the texts answered to them."""
        port = self._connected()
        requests: list[int] = []
        try:
            for payload in payloads:
                requests.append(self._next_request())
                port.send(kind, requests[-1], payload)
        except BaseException:
            self.close()
            raise

        def take() -> list[str | KernelError]:
            try:
                return [self._text(port, *asked) for asked in zip(requests, operations, strict=True)]
            except BaseException:
                self.close()
                raise

        return take

    def _text(self, port: GuestPort, request: int, operation: str) -> str | KernelError:
        seconds = self._limits.request_seconds
        deadline = time.monotonic() + seconds
        answered, of, body = self._receive(port, deadline, seconds, f"{operation} in the guest")
        if answered != wire.DONE or of != request:
            raise ProtocolError(f"the guest's agent sent frame {answered} out of turn")
        number, text = _unpack_done(body)
        return KernelError(operation, number, text) if number else text

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Wait no longer than ``seconds`` for each answer of the guest's kernel while the context lasts."""
        before = self._limits
        self._limits = before._replace(answer_seconds=min(seconds, before.answer_seconds))
        try:
            yield
        finally:
            self._limits = before

    @contextmanager
    def subscribe(self, family: Family, group: int, *, confirmed: bool = True) -> Iterator[Subscription]:
        """Notifications of a multicast group while the context lasts.

        Without ``confirmed`` it is active from the answer to the next request on, and that request may raise its error.

        :raise KernelError: the guest's kernel has no such group.
        :raise GuestError, DeadlineError, ProtocolError: the channel failed.
        """
        from kata_runtime.guest.subscription import Subscription

        port = self._connected()
        request = self._next_request()
        with operation_log.measured("netlink subscription", family=family.name, group=group):
            try:
                port.send_early(wire.SUBSCRIBE, request, wire.pack_target(family, group))
                self._notifications[request] = deque()
                self._unconfirmed.add(request)
                if confirmed:
                    self._await_confirmation(port, request)
            except BaseException:
                self.close()
                raise
        try:
            yield Subscription(self, request)
        finally:
            self._kept_bytes -= sum(map(len, self._notifications.pop(request, ())))
            if self._port is port:
                self._unsubscribe(port, request)

    def _await_confirmation(self, port: GuestPort, request: int) -> None:
        seconds = self._limits.request_seconds
        deadline = time.monotonic() + seconds
        while request in self._unconfirmed:
            frame = port.receive(deadline, seconds, "subscribing to kernel notifications in the guest")
            if not self._is_of_subscription(frame):
                raise ProtocolError(f"the guest's agent sent frame {frame[0]} out of turn")

    def _unsubscribe(self, port: GuestPort, request: int) -> None:
        # The answer is ignored when it arrives: usually the connection, and with it every subscription, ends before.
        self._unconfirmed.discard(request)
        self._ended.add(request)
        try:
            port.send_early(wire.UNSUBSCRIBE, request)
        except GuestError:
            self.close()

    def next_notification(self, request: int, deadline: float, seconds: float, awaited: str) -> bytes:
        """The next datagram of a subscription, before ``deadline`` of the monotonic clock."""
        while True:
            kept = self._notifications.get(request)
            if kept is None:
                text = "a subscription to the guest's notifications ended with its connection"
                raise GuestError(text, hint="try again")
            if kept:
                taken = kept.popleft()
                self._kept_bytes -= len(taken)
                return taken
            frame = self._connected().receive(deadline, seconds, awaited)
            if not self._is_of_subscription(frame):
                raise ProtocolError(f"the guest's agent sent frame {frame[0]} while a notification was awaited")

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read (or set, then read) a sysctl by its path below /proc/sys, e.g. ``net/ipv4/ip_forward``.

        :raise KernelError: ENOENT where the kernel lacks it, EINVAL for a value it refuses.
        """
        (found,) = self.sysctls([(name, value)])
        if isinstance(found, KernelError):
            raise found
        return found

    def sysctls(self, asked: Sequence[tuple[str, str | None]]) -> list[str | KernelError]:
        """Several of them, in this order, in one round trip; a refusal stands in the place of its value."""
        return self.ask_sysctls(asked)()

    def ask_sysctls(self, asked: Sequence[tuple[str, str | None]]) -> Callable[[], list[str | KernelError]]:
        """``sysctls`` in two steps: what is returned takes the answers, before those to any later request."""
        names = [name for name, _ in asked]
        packed = [(name if value is None else f"{name}\0{value}").encode() for name, value in asked]
        take = self._ask_all(wire.SYSCTL, packed, [f"sysctl {name}" for name in names])

        def answers() -> list[str | KernelError]:
            with operation_log.measured("sysctl", names=names) as step:
                found = take()
                step.note(answers=list(map(str, found)))
                return found

        return answers

    def renew(self, host_name: str) -> None:
        """Give the guest fresh randomness, the time of day, a host name and a machine ID of its own.

        :raise KernelError: the guest's kernel refused one. :raise GuestError, DeadlineError: the channel failed.
        """
        # Before the time of day is taken: a guest that has just started is slow to answer.
        self._connected().agree()
        payload = wire.pack_renewal(os.urandom(wire.SEED_BYTES), time.time_ns(), host_name)
        self._ask(wire.RENEW, payload, "renewing the guest's identity")

    def shutdown(self) -> None:
        """Ask the guest to end its processes and power off."""
        with operation_log.measured("shutdown"):
            self._ask(wire.SHUTDOWN, b"", "shutdown")

    def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
    ) -> Completed:
        """Run a short command in the guest as ``run_command`` does, on the port kept for the runtime's own use.

        :raise GuestError: it cannot be started. :raise DeadlineError: it ran longer than ``seconds``.
        """
        from kata_runtime.guest.short_command import run_command

        return run_command(
            self._exec_path, argv, stdin, seconds=seconds, limits=self._limits, fixed_addresses=fixed_addresses
        )


def _unpack_done(payload: bytes) -> tuple[int, str]:
    try:
        return wire.unpack_done(payload)
    except wire.FrameError as error:
        raise ProtocolError(f"the guest's agent sent {error}") from None
