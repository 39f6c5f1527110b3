"""The current answer on a port, sent in pieces as the host reads them, without blocking."""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.netlink_relay import Awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.loop import Loop
    from kata_runtime.guest.agent.netlink_relay import Step


class Answer:
    """DATA for each piece that ``steps`` yields, then DONE; ``resume`` is called when the kernel's answer arrives."""

    def __init__(
        self, port: Port, loop: Loop, request: int, steps: Generator[Step, None, None], resume: Callable[[], None]
    ) -> None:
        self._port = port
        self._loop = loop
        self._request = request
        self._steps = steps
        self._resume = resume
        self._watched: int | None = None
        self.has_ended = False

    def advance(self) -> bool:
        """Send one piece, or DONE; False when there is none before ``resume`` is called."""
        # The socket can be closed below, which epoll would not report.
        self._unwatch()
        try:
            step = next(self._steps)
        except StopIteration:
            self._end(0, "")
        except OSError as error:
            self._end(error.errno or errno.EIO, error.strerror or "")
        else:
            if isinstance(step, Awaited):
                self._await(step)
                return False
            self._port.send(wire.DATA, self._request, step)
        return True

    def abandon(self) -> None:
        """Discard the rest: its client is gone."""
        self._unwatch()
        self._steps.close()

    def _end(self, number: int, text: str) -> None:
        self.has_ended = True
        self._port.send(wire.DONE, self._request, wire.pack_done(number, text))

    def _await(self, awaited: Awaited) -> None:
        self._watched = awaited.fd
        self._loop.watch(awaited.fd, select.EPOLLIN, self._resume)
        self._loop.later(max(awaited.deadline - time.monotonic(), 0), self._resume)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.forget(self._watched)
            self._watched = None
