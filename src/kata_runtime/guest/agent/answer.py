"""The current answer on a port, sent in pieces as the host reads them, without blocking."""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.netlink_relay import PIECE_BYTES, KernelWait

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.loop import Loop
    from kata_runtime.guest.agent.netlink_relay import Step


class Answer:
    """Sends DATA for each piece that ``steps`` yields, then DONE; calls ``resume`` when the kernel's answer arrives."""

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
        """Send one piece, or DONE; False: nothing can be sent until ``resume`` is called."""
        # The next step may close the socket, so it is unregistered before.
        self._unwatch()
        try:
            step = next(self._steps)
        except StopIteration:
            self._end(0, "")
        except OSError as error:
            self._end(error.errno or errno.EIO, error.strerror or "")
        else:
            if isinstance(step, KernelWait):
                self._resume_after(step)
                return False
            # A piece that is not full is the last: it goes with the DONE, since each write has a price.
            self._port.send(wire.DATA, self._request, step, more=len(step) < PIECE_BYTES)
        return True

    def abandon(self) -> None:
        """Discard the rest, because the client has disconnected."""
        self._unwatch()
        self._steps.close()

    def _end(self, number: int, text: str) -> None:
        self.has_ended = True
        self._port.send(wire.DONE, self._request, wire.pack_done(number, text))

    def _resume_after(self, wait: KernelWait) -> None:
        self._watched = wait.fd
        self._loop.watch(wait.fd, select.EPOLLIN, self._resume)
        self._loop.later(max(wait.deadline - time.monotonic(), 0), self._resume)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.forget(self._watched)
            self._watched = None
