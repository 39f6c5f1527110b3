"""The agent's one event loop: descriptors and what to do when they are ready."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Loop:
    """epoll(7) with a callback a descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._due: list[tuple[float, Callback]] = []

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events`` (or has hung up)."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callback) -> None:
        """Call ``callback`` once, after ``seconds``; with 0 once all that is ready now has been served."""
        self._due.append((time.monotonic() + seconds, callback))

    def _call_due(self) -> float | None:
        """Make the calls that are due; seconds until the next, None without one."""
        now = time.monotonic()
        due = [callback for moment, callback in self._due if moment <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for callback in due:
            callback()
        return max(min(moment for moment, _ in self._due) - now, 0) if self._due else None

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait until something is ready or due, and make the calls for it."""
        for fd, _ in self._epoll.poll(self._call_due()):
            # A callback can have forgotten another descriptor of the same round.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
