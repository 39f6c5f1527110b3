"""The control port: serves HELLO, netlink, notifications, sysctls, files, socket options, renewal and shutdown."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
from collections import deque
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.answer import Answer
from kata_runtime.guest.agent.netlink_relay import subscribe
from kata_runtime.guest.agent.sysctl import access_sysctl
from kata_runtime.guest.netlink_block import unpack_netlink

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator

    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.loop import Loop
    from kata_runtime.guest.agent.netlink_relay import Relay, Step
    from kata_runtime.guest.agent.socket_options import SocketOptions
    from kata_runtime.guest.agent.template_renewal import Renewal

_NOTIFICATION_BYTES = 256 * 1024
_SUBSCRIPTIONS_MAX = 8
# Requests (at most 512 KiB each) that may wait for the current one; the host sends at most four ahead.
_WAITING_MAX = 16
# After this many pieces of answers the other ports are served.
_PIECES_A_TURN = 16
# How long the guest waits for the host to read the answer to SHUTDOWN before it powers off.
_SHUTDOWN_SECONDS = 2.0
_PROC_NET_NAME = re.compile(rb"[a-z0-9_]{1,64}")


class Control:
    """Serves one client at a time, and its requests in order; a HELLO discards the requests of the previous client.

    A client that does not read its answer delays only its own requests: the answer continues when the port has room.
    """

    def __init__(self, port: Port, loop: Loop, relay: Relay, options: SocketOptions, renewal: Renewal) -> None:
        self._port = port
        self._loop = loop
        self._relay = relay
        self._socket_options = options
        self._renewal = renewal
        self._subscriptions: dict[int, socket.socket] = {}
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._answer: Answer | None = None
        self._is_scheduled = False
        self._powers_off = False
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            wire.NETLINK: self._netlink,
            wire.SUBSCRIBE: self._subscribe,
            wire.UNSUBSCRIBE: self._unsubscribe,
            wire.SYSCTL: self._sysctl,
            wire.READ: self._read,
            wire.RENEW: self._renew,
            wire.OPTIONS: self._options,
            wire.SHUTDOWN: self._shutdown,
        }
        # Tells clients that still wait for an agent that ended.
        port.greet(0, b"")
        loop.watch(port.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET, self._ready)

    def _ready(self) -> None:
        self._port.flush()
        # A disconnection needs no action here: the next client's HELLO discards the requests.
        frames, _ = self._port.receive()
        for raw in frames:
            try:
                kind, request, payload = wire.unpack_body(raw)
            except wire.FrameError:
                continue
            if kind == wire.HELLO:
                self._hello(request, payload)
            elif len(self._waiting) < _WAITING_MAX:
                self._waiting.append((kind, request, payload))
            elif not self._port.is_full:
                self._done(request, errno.ENOBUFS, "too many requests at once")
        self._work()

    def _work(self) -> None:
        """Answer requests while the port has room; ``_ready`` is called when a full port has room again."""
        for _ in range(_PIECES_A_TURN):
            if self._port.is_full:
                return
            if self._answer is not None:
                if not self._answer.advance():
                    return
                if self._answer.has_ended:
                    self._answer = None
            elif self._waiting:
                self._serve(*self._waiting.popleft())
            else:
                if self._powers_off and not self._port.backlog:
                    _power_off()
                return
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._work()

    def _serve(self, kind: int, request: int, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            self._done(request, errno.EOPNOTSUPP, f"unknown request {kind}")
            return
        try:
            handler(request, payload)
        except wire.FrameError as error:
            self._done(request, errno.EBADMSG, str(error))

    def _done(self, request: int, number: int = 0, text: str = "") -> None:
        self._port.send(wire.DONE, request, wire.pack_done(number, text))

    def _hello(self, request: int, payload: bytes) -> None:
        self._waiting.clear()
        if self._answer is not None:
            self._answer.abandon()
            self._answer = None
        for old in list(self._subscriptions):
            self._close_subscription(old)
        self._port.greet(request, payload)

    def _netlink(self, request: int, payload: bytes) -> None:
        family, last, one_by_one, block = unpack_netlink(payload)
        self._begin(request, self._relay.exchange(family, last, block, one_by_one=one_by_one))

    def _read(self, request: int, payload: bytes) -> None:
        if not _PROC_NET_NAME.fullmatch(payload):
            self._done(request, errno.EINVAL, "not the name of a file in /proc/net")
            return
        self._begin(request, self._relay.read(payload.decode()))

    def _options(self, request: int, payload: bytes) -> None:
        self._begin(request, self._socket_options.read(*wire.unpack_options(payload)))

    def _begin(self, request: int, steps: Generator[Step, None, None]) -> None:
        """Answer with what ``steps`` yields, piece by piece; later requests wait until it has ended."""
        self._answer = Answer(self._port, self._loop, request, steps, self._work)

    def _subscribe(self, request: int, payload: bytes) -> None:
        family, group, _ = wire.unpack_target(payload)
        if len(self._subscriptions) >= _SUBSCRIPTIONS_MAX or request in self._subscriptions:
            self._done(request, errno.EBUSY, "too many subscriptions")
            return
        try:
            opened = subscribe(family, group)
        except OSError as error:
            self._done(request, error.errno or errno.EIO, error.strerror or "")
            return
        self._subscriptions[request] = opened
        self._loop.watch(opened.fileno(), select.EPOLLIN, lambda: self._notify(request))
        self._done(request)

    def _notify(self, request: int) -> None:
        opened = self._subscriptions[request]
        try:
            data = opened.recv(_NOTIFICATION_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            # ENOBUFS: notifications were lost; the host has to read the state itself.
            self._close_subscription(request)
            self._done(request, error.errno or errno.EIO, "notifications were lost")
            return
        if not self._port.is_full:
            self._port.send(wire.NOTIFY, request, data)

    def _unsubscribe(self, request: int, _payload: bytes) -> None:
        self._close_subscription(request)
        self._done(request)

    def _close_subscription(self, request: int) -> None:
        opened = self._subscriptions.pop(request, None)
        if opened is not None:
            self._loop.forget(opened.fileno())
            opened.close()

    def _sysctl(self, request: int, payload: bytes) -> None:
        name, separator, value = payload.partition(b"\0")
        try:
            text = access_sysctl(name, value if separator else None)
        except OSError as error:
            self._done(request, error.errno or errno.EIO, error.strerror or "")
            return
        self._done(request, 0, text.decode("utf-8", "replace").strip())

    def _renew(self, request: int, payload: bytes) -> None:
        try:
            self._renewal.renew(payload)
        except OSError as error:
            self._done(request, error.errno or errno.EIO, error.strerror or "")
        else:
            self._done(request)

    def _shutdown(self, request: int, _payload: bytes) -> None:
        self._done(request)
        self._powers_off = True
        self._loop.later(_SHUTDOWN_SECONDS, _power_off)


def _power_off() -> None:
    # -1: all processes except init and the agent. Then power off at once: an orderly init would pause.
    os.kill(-1, signal.SIGTERM)
    os.sync()
    os.execvp("poweroff", ["poweroff", "-f"])
