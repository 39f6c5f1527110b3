"""Deadlines for calls of libraries that have none of their own."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

# A peer that has not answered for _UNANSWERED_SECONDS is not asked again for _SILENCE_SECONDS: a container can have 32
# ports to delete, which would each wait for it.
_UNANSWERED_SECONDS = 4.0
_SILENCE_SECONDS = 60.0
_silent_until: dict[str, float] = {}


def call_within(seconds: float, peer: str, function: Callable[[], T]) -> T:
    """Call ``function`` in a thread with all signals blocked, and return its result.

    At the deadline the thread is abandoned. ``peer`` names the service that is called: if it has just failed to answer,
    the call fails at once.

    :raise TimeoutError: it took longer. Exceptions of ``function`` are passed on.
    """
    begun = time.monotonic()
    if begun < _silent_until.get(peer, 0.0):
        raise TimeoutError
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    thread = ThreadPoolExecutor(1)
    try:
        future = thread.submit(function)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return future.result(seconds)
    except Exception:  # of any library; it is raised again below
        # Only how long it took decides whether this peer is asked again.
        now = time.monotonic()
        if now - begun > min(seconds, _UNANSWERED_SECONDS):
            _silent_until[peer] = now + _SILENCE_SECONDS
        raise
    finally:
        thread.shutdown(wait=False)
