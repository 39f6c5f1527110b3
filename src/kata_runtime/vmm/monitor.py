"""QEMU's machine protocol (QMP) for callers that wait: a synchronous face on the QEMU project's ``qemu.qmp``.

``qemu.qmp`` and asyncio cost 60 ms to import, so they are loaded by the first connection.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kata_runtime import operation_log, unix_socket
from kata_runtime.errors import DeadlineError, QemuError

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from pathlib import Path

    from qemu.qmp import EventListener, QMPClient

T = TypeVar("T")

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0

_GONE = "QEMU ended or closed its monitor"


class EventQueue:
    """Events from the moment its ``Monitor.listen`` began."""

    def __init__(self, monitor: Monitor, listener: EventListener) -> None:
        self._monitor = monitor
        self._listener = listener

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
                remaining = end - time.monotonic()
                event = self._monitor.next_event(self._listener, max(remaining, 0))
                if event is None:
                    raise DeadlineError(awaited, deadline)
                data = event.get("data", {})
                if isinstance(data, dict) and predicate(data):
                    step.note(event=event.get("event"), data=data)
                    return data


class Monitor:
    """A connection to a running QEMU's monitor; QEMU serves one at a time. A context manager."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: QMPClient) -> None:
        self._loop = loop
        self._client = client
        self._closed = False
        self._unanswered: set[asyncio.Task[object]] = set()

    @classmethod
    def connect(cls, path: Path, deadline: float = CONNECT_SECONDS) -> Self:
        """Connect to the socket at ``path``, of any length, and agree on capabilities.

        :raise QemuError: nobody listens there, or it is no QMP server.
        :raise DeadlineError: no greeting within ``deadline`` seconds, for example while another client is served.
        """
        try:
            opened = unix_socket.connect(str(path), deadline)
        except TimeoutError:
            raise DeadlineError("a connection to QEMU's monitor", deadline) from None
        except OSError as error:
            raise QemuError(f"cannot reach QEMU's monitor {str(path)!r}: {error.strerror}") from error
        import asyncio

        from qemu.qmp import QMPClient

        opened.setblocking(False)
        loop = asyncio.new_event_loop()
        monitor = cls(loop, QMPClient())
        try:
            with operation_log.measured("qmp connection"):
                monitor._greet(opened, deadline)
        except BaseException:
            opened.close()
            monitor.close()
            raise
        return monitor

    def _greet(self, opened: socket.socket, deadline: float) -> None:
        from qemu.qmp import ConnectError

        try:
            self._run(self._within(self._client.connect(opened), deadline))
        except TimeoutError:
            raise DeadlineError("the greeting of QEMU's monitor", deadline) from None
        except ConnectError as error:
            raise QemuError(f"QEMU's monitor does not speak QMP: {_cause(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        if self._closed:
            return
        self._closed = True
        import asyncio

        from qemu.qmp import QMPError

        try:
            for task in self._unanswered:
                task.cancel()
            self._run(asyncio.wait_for(self._client.disconnect(), COMMAND_SECONDS))
        except (QMPError, OSError, EOFError, ValueError, TimeoutError, asyncio.CancelledError):
            # The connection ends here whatever its end is like.
            return
        finally:
            self._loop.close()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, deadline: float = COMMAND_SECONDS
    ) -> object:
        """The value that ``command`` returned.

        :raise QemuError: QEMU refused (``error_class`` says how) or ended; then the command may have been carried out.
        :raise DeadlineError: no answer within ``deadline`` seconds; the command may still be carried out.
        """
        with operation_log.measured("qmp", command=command, arguments=arguments) as step:
            result = self._answer(command, arguments, deadline)
            step.note(result=result)
            return result

    def _answer(self, command: str, arguments: Mapping[str, object] | None, deadline: float) -> object:
        from qemu.qmp import ExecuteError, QMPError

        self._check_open(command)
        try:
            return self._run(self._execute(command, arguments, deadline))
        except TimeoutError:
            raise DeadlineError(f"QEMU's answer to {command}", deadline) from None
        except ExecuteError as error:
            raise QemuError(
                f"QEMU refused {command}: {error}", command=command, error_class=str(error.error_class)
            ) from error
        except (QMPError, EOFError, OSError, ValueError) as error:
            # ValueError: bytes that no JSON decoder takes for text pass through qemu.qmp as they are.
            raise QemuError(f"{_GONE} during {command}", command=command) from error

    async def _execute(self, command: str, arguments: Mapping[str, object] | None, deadline: float) -> object:
        import asyncio

        task = asyncio.ensure_future(self._client.execute(command, None if arguments is None else dict(arguments)))
        # A task that is given up stays, to take the answer that may come late: to qemu.qmp an answer that
        # nobody awaits is a broken protocol.
        self._unanswered.add(task)
        done, _ = await asyncio.wait({task}, timeout=deadline)
        if not done:
            raise TimeoutError
        self._unanswered.discard(task)
        return task.result()

    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a duplicate of ``fd`` under ``name`` (QAPI: getfd), replacing one of that name.

        :raise QemuError, DeadlineError: as for ``execute``.
        """
        self._check_open("getfd")

        async def send() -> None:
            self._client.send_fd_scm(fd)

        try:
            self._run(send())
        except OSError as error:
            raise QemuError(f"cannot hand QEMU a descriptor: {error.strerror}", command="getfd") from error
        self.execute("getfd", {"fdname": name})

    @contextmanager
    def listen(self, *names: str) -> Iterator[EventQueue]:
        """Collect the events ``names`` (QAPI) from now on: enter it before the command that causes them."""
        with self._client.listener(names) as listener:
            yield EventQueue(self, listener)

    def next_event(self, listener: EventListener, seconds: float) -> Mapping[str, object] | None:
        """The next event of ``listener``, None when none came for so long.

        :raise QemuError: QEMU ended.
        """
        self._check_open("")
        return self._run(self._next_event(listener, seconds))

    async def _next_event(self, listener: EventListener, seconds: float) -> Mapping[str, object] | None:
        import asyncio

        got = asyncio.ensure_future(listener.get())
        # A listener is not woken by the end of the connection.
        ended = asyncio.ensure_future(self._client.runstate_changed())
        try:
            await asyncio.wait({got, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if got.done():
                return got.result()
            if ended.done():
                raise QemuError(_GONE)
            return None
        finally:
            got.cancel()
            ended.cancel()

    def _check_open(self, command: str) -> None:
        from qemu.qmp import Runstate

        if self._closed or self._client.runstate != Runstate.RUNNING:
            raise QemuError(_GONE, command=command)

    async def _within(self, awaited: Coroutine[Any, Any, T], seconds: float) -> T:
        import asyncio

        return await asyncio.wait_for(awaited, seconds)

    def _run(self, awaited: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(awaited)


def _cause(error: BaseException) -> str:
    """The line of the innermost reason: qemu.qmp wraps it in what it was doing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
