"""Calls of libraries that know no deadline of their own for all that they do."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """What ``function`` returns in a thread that signals do not reach, and that is left behind when it takes longer.

    :raise TimeoutError: it did. All that ``function`` raises passes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    thread = ThreadPoolExecutor(1)
    try:
        future = thread.submit(function)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        return future.result(seconds)
    finally:
        thread.shutdown(wait=False)
