"""Deadlines for calls of libraries that have none of their own."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait

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
    the call fails at once. After a signal the exception of its handler is raised when the call has ended: a request
    that is still on its way would otherwise be carried out after the caller has undone it.

    :raise TimeoutError: it took longer. Exceptions of ``function`` are passed on.
    """
    begun = time.monotonic()
    if begun < _silent_until.get(peer, 0.0):
        raise TimeoutError
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    thread = ThreadPoolExecutor(1)
    called = []
    try:
        try:
            called.append(thread.submit(function))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return called[0].result(seconds)
    except Exception:  # of any library; it is raised again below
        # Only how long it took decides whether this peer is asked again.
        if time.monotonic() - begun > min(seconds, _UNANSWERED_SECONDS):
            _silent_until[peer] = time.monotonic() + _SILENCE_SECONDS
        raise
    except BaseException:
        if wait(called, max(0.0, begun + seconds - time.monotonic())).not_done:
            _silent_until[peer] = time.monotonic() + _SILENCE_SECONDS
        raise
    finally:
        thread.shutdown(wait=False)
