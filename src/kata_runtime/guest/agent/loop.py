"""The agent's one event loop: descriptors and what to do when they are ready."""

from __future__ import annotations

import select
from collections.abc import Callable

Callback = Callable[[], None]


class Loop:
    """epoll(7) with a callback a descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events`` (or has hung up)."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for fd, _ in self._epoll.poll():
                # A callback can have forgotten another descriptor of the same round.
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback()
