"""Calls of libraries that know no deadline of their own for all that they do."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

# A peer that cost so much in vain is not asked again for a while: a container can have 32 ports to take away.
_VAIN_SECONDS = 4.0
_SILENCE_SECONDS = 60.0
_silent_until: dict[str, float] = {}


def call_within(seconds: float, peer: str, function: Callable[[], T]) -> T:
    """What ``function`` returns in a thread that signals do not reach, and that is left behind when it takes longer.

    ``peer`` names who is asked: one that has just not answered is taken not to answer now.

    :raise TimeoutError: it did. All that ``function`` raises passes.
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
    except Exception:
        now = time.monotonic()
        if now - begun > min(seconds, _VAIN_SECONDS):
            _silent_until[peer] = now + _SILENCE_SECONDS
        raise
    finally:
        thread.shutdown(wait=False)
