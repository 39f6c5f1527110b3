"""Calls with a deadline."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from kata_runtime.network.clients import bounded
from kata_runtime.network.clients.bounded import call_within


def test_results_and_errors_pass() -> None:
    """What the function returns or raises is the caller's, and signals stay those of the main thread."""
    assert call_within(5, "quick", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])) >= {signal.SIGTERM}
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(ZeroDivisionError):
        call_within(5, "quick", lambda: 1 // 0)
    assert call_within(5, "quick", lambda: 7) == 7


def test_a_peer_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a deadline the same peer costs no time for a while, and others are asked."""
    end = threading.Event()
    with pytest.raises(TimeoutError):
        call_within(0.1, "hangs", end.wait)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        call_within(60, "hangs", end.wait)
    assert time.monotonic() - begun < 30
    end.set()
    assert call_within(5, "other", lambda: 7) == 7
    monkeypatch.setattr(bounded, "_silent_until", {"hangs": time.monotonic() - 1})
    assert call_within(5, "hangs", lambda: 7) == 7
