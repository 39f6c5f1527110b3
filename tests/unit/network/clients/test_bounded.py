"""Calls with a deadline."""

from __future__ import annotations

import signal
import subprocess
import threading
import time

import pytest

from kata_runtime.cli.interrupted import Interrupted
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


def test_a_signal_waits_for_the_call() -> None:
    """What a signal interrupts has taken effect, or failed, when its exception arrives; at the deadline it arrives."""
    done: list[int] = []
    may_end = threading.Event()

    def interrupt(*_: object) -> None:
        may_end.set()
        raise Interrupted(signal.SIGALRM)

    def act() -> None:
        may_end.wait()
        done.append(subprocess.run(["true"], check=True).returncode)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            call_within(60, "slow", act)
        assert done == [0]
        end = threading.Event()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            call_within(0.5, "stuck", end.wait)
        with pytest.raises(TimeoutError):
            call_within(60, "stuck", act)
        end.set()
    finally:
        signal.signal(signal.SIGALRM, before)
