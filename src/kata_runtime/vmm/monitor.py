"""A connection to QEMU's monitor: requests, answers and events of its machine protocol (QMP), with deadlines.

A plain socket instead of the QEMU project's ``qemu.qmp``: that library needs asyncio, and both together take longer
to import than a NIC takes to be plugged. Source: QEMU's docs/interop/qmp-spec.rst.
"""

from __future__ import annotations

import os
import select
import time
from _socket import MSG_NOSIGNAL

from kata_runtime import fast_json, operation_log, unix_socket
from kata_runtime.errors import DeadlineError, QemuError
from kata_runtime.fast_contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections import deque
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Self
else:
    from _collections import deque

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0

_GONE = "QEMU ended or closed its monitor"
_READ_BYTES = 64 * 1024
# The longest answers to our commands, those of query-chardev and qom-list, have a few KiB.
_MESSAGE_BYTES_MAX = 4 * 1024 * 1024
# More than any operation waits for.
_EVENTS_MAX = 10_000


class UnansweredError(DeadlineError):
    """QEMU did not answer a command in time; it may have carried it out, or do so later."""


class _EndedError(Exception):
    """The connection ended, or QEMU sent an invalid message; the text says which."""


class EventQueue:
    """Events from the moment its ``Monitor.listen`` began."""

    def __init__(self, monitor: Monitor, names: frozenset[str]) -> None:
        self._monitor = monitor
        self._names = names
        self._received: deque[tuple[object, Mapping[str, object]]] = deque(maxlen=_EVENTS_MAX)

    def offer(self, name: object, data: Mapping[str, object]) -> None:
        """Keep the event when it is one of those listened for."""
        # The name of an event can be any JSON value, not only a string.
        if isinstance(name, str) and name in self._names:
            self._received.append((name, data))

    def wait(
        self, predicate: Callable[[Mapping[str, object]], bool], deadline: float, *, awaited: str
    ) -> Mapping[str, object]:
        """The data of the first event that ``predicate`` accepts; ``deadline`` in seconds.

        :raise DeadlineError: none came in time; names ``awaited``.
        :raise QemuError: QEMU ended.
        """
        end = time.monotonic() + deadline
        with operation_log.measured("qmp event", awaited=awaited) as step:
            while True:
                while self._received:
                    name, data = self._received.popleft()
                    if predicate(data):
                        step.note(event=name, data=data)
                        return data
                if not self._monitor.receive_events(end):
                    raise DeadlineError(awaited, deadline)


class Monitor:
    """A connection to a running QEMU's monitor; QEMU serves one at a time. A context manager."""

    def __init__(self, opened: socket) -> None:
        opened.setblocking(False)
        self._socket = opened
        self._poller = select.poll()
        self._received = bytearray()
        self._searched = 0
        self._listeners: list[EventQueue] = []
        self._request = 0
        self._closed = False

    @classmethod
    def connect(cls, path: str | Path, deadline: float = CONNECT_SECONDS) -> Self:
        """Connect to the socket at ``path``, of any length, and agree on capabilities.

        :raise QemuError: nothing listens there, or it is no QMP server.
        :raise DeadlineError: no greeting within ``deadline`` seconds, for example while another client is served.
        """
        try:
            opened = unix_socket.connect(os.fspath(path), deadline)
        except TimeoutError:
            raise DeadlineError("a connection to QEMU's monitor", deadline) from None
        except OSError as error:
            raise QemuError(f"cannot reach QEMU's monitor {os.fspath(path)!r}: {error.strerror}") from error
        monitor = cls(opened)
        try:
            with operation_log.measured("qmp connection"):
                monitor._greet(deadline)
        except BaseException:
            monitor.close()
            raise
        return monitor

    def _greet(self, deadline: float) -> None:
        end = time.monotonic() + deadline
        try:
            greeting = self._next_message(end)
            if greeting is not None and "QMP" not in greeting:
                raise _EndedError(f"its greeting is {str(greeting)[:80]!a}")
            answer = None if greeting is None else self._ask("qmp_capabilities", None, (), end)
        except _EndedError as error:
            self._closed = True
            raise QemuError(f"QEMU's monitor does not speak QMP: {error}") from error
        if answer is None:
            raise DeadlineError("the greeting of QEMU's monitor", deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; QEMU keeps running."""
        self._closed = True
        self._socket.close()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, deadline: float = COMMAND_SECONDS
    ) -> object:
        """The value that ``command`` returned.

        :raise QemuError: QEMU refused (``error_class`` says how) or ended; then the command may have been carried out.
        :raise UnansweredError: no answer within ``deadline`` seconds; the command may still be carried out.
        """
        return self._execute(command, arguments, (), deadline)

    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a duplicate of ``fd`` under ``name`` (QAPI: getfd), replacing one of that name.

        :raise QemuError, DeadlineError: as for ``execute``.
        """
        self._execute("getfd", {"fdname": name}, (fd,), COMMAND_SECONDS)

    def _execute(
        self, command: str, arguments: Mapping[str, object] | None, descriptors: tuple[int, ...], deadline: float
    ) -> object:
        with operation_log.measured("qmp", command=command, arguments=arguments) as step:
            result = self._answer(command, arguments, descriptors, deadline)
            step.note(result=result)
            return result

    def _answer(
        self, command: str, arguments: Mapping[str, object] | None, descriptors: tuple[int, ...], deadline: float
    ) -> object:
        if self._closed:
            raise QemuError(_GONE, command=command)
        try:
            answer = self._ask(command, arguments, descriptors, time.monotonic() + deadline)
        except _EndedError as error:
            self._closed = True
            raise QemuError(f"{_GONE} during {command}", command=command) from error
        if answer is None:
            raise UnansweredError(f"QEMU's answer to {command}", deadline)
        if "return" in answer:
            return answer["return"]
        refusal = answer.get("error")
        if not isinstance(refusal, dict):
            self._closed = True
            raise QemuError(f"{_GONE} during {command}", command=command)
        raise QemuError(
            f"QEMU refused {command}: {refusal.get('desc')}",
            command=command,
            error_class=str(refusal.get("class")),
        )

    def _ask(
        self, command: str, arguments: Mapping[str, object] | None, descriptors: tuple[int, ...], end: float
    ) -> Mapping[str, object] | None:
        """QEMU's answer, None when it did not come before ``end``; events that come first go to their listeners."""
        self._request += 1
        request: dict[str, object] = {"execute": command, "id": self._request}
        if arguments is not None:
            request["arguments"] = dict(arguments)
        if not self._send(fast_json.dumps(request).encode(), descriptors, end):
            return None
        while (message := self._next_message(end)) is not None:
            number = message.get("id")
            if number == self._request:
                return message
            # A smaller number: the late answer to a request whose deadline had passed.
            known = isinstance(number, int) and 0 < number < self._request
            if not known and not self._distribute(message):
                raise _EndedError(f"it answered to request {str(number)[:80]!a}")
        return None

    def _send(self, data: bytes, descriptors: tuple[int, ...], end: float) -> bool:
        rights = unix_socket.ancillary_of(descriptors)
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.sendmsg([left], rights, MSG_NOSIGNAL) :]
                # The kernel passes descriptors with the first byte that is sent with them (unix(7)).
                rights = []
            except BlockingIOError:
                if not self._wait(select.POLLOUT, end):
                    # The rest would follow in the middle of the next request.
                    raise _EndedError("it does not read") from None
            except OSError as error:
                raise _EndedError(error.strerror or "it ended") from error
        return True

    def _next_message(self, end: float) -> Mapping[str, object] | None:
        """The next message; None when none came before ``end`` of the monotonic clock."""
        while (newline := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            if self._searched > _MESSAGE_BYTES_MAX:
                raise _EndedError(f"it sent more than {_MESSAGE_BYTES_MAX >> 20} MiB without an end of line")
            if not self._wait(select.POLLIN, end):
                return None
            self._receive()
        line = bytes(self._received[:newline])
        del self._received[: newline + 1]
        self._searched = 0
        try:
            message = fast_json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise _EndedError(f"it sent {line[:80]!a}") from error
        if not isinstance(message, dict):
            raise _EndedError(f"it sent {line[:80]!a}")
        return message

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise _EndedError(error.strerror or "it ended") from error
        if not data:
            raise _EndedError("it closed the connection")
        self._received += data

    def _wait(self, events: int, end: float) -> bool:
        self._poller.register(self._socket, events)
        remaining = end - time.monotonic()
        return remaining > 0 and bool(self._poller.poll(remaining * 1000))

    def _distribute(self, message: Mapping[str, object]) -> bool:
        """Pass an event to its listeners; False if the message is no event."""
        if "event" not in message:
            return False
        data = message.get("data", {})
        for listener in self._listeners:
            listener.offer(message["event"], data if isinstance(data, dict) else {})
        return True

    @contextmanager
    def listen(self, *names: str) -> Iterator[EventQueue]:
        """Collect the events ``names`` (QAPI) from now on: enter it before the command that causes them."""
        listener = EventQueue(self, frozenset(names))
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def receive_events(self, end: float) -> bool:
        """Take the next message off the connection; False when none came before ``end`` of the monotonic clock.

        :raise QemuError: QEMU ended.
        """
        if self._closed:
            raise QemuError(_GONE)
        try:
            message = self._next_message(end)
        except _EndedError as error:
            self._closed = True
            raise QemuError(_GONE) from error
        if message is not None:
            self._distribute(message)
        return message is not None
