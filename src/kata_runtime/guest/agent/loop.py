"""The agent's only event loop: calls functions when descriptors are ready or deadlines have passed."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Loop:
    """epoll(7), with one callback for each descriptor."""

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
        """Call ``callback`` once, after ``seconds``; 0: as soon as everything that is ready now has been served."""
        self._due.append((time.monotonic() + seconds, callback))

    def _call_due(self) -> float | None:
        """Make the calls that are due; return the seconds until the next one, None if there is none."""
        now = time.monotonic()
        due = [callback for moment, callback in self._due if moment <= now]
        self._due = [entry for entry in self._due if entry[0] > now]
        for callback in due:
            callback()
        return max(min(moment for moment, _ in self._due) - now, 0) if self._due else None

    def run(self) -> None:
        """Serve for ever."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Wait until something is ready or due, and make the calls for it."""
        for fd, _ in self._epoll.poll(self._call_due()):
            # An earlier callback of this round may have stopped watching this descriptor.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
