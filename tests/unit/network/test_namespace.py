"""Functions that run in another network namespace."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import ExitStack

import pytest

from kata_runtime.errors import HostError
from kata_runtime.network.namespace import Namespace

_OWN = "/proc/self/ns/net"
_STEPS = 1000
_AGAIN_SECONDS = 1.0


class _SignalError(Exception):
    """Raised by the handler of a signal, as an ending signal's exception is."""


def test_results_and_errors_are_passed_on() -> None:
    """What the function returns, and an error that it raises, reach the caller."""
    error = HostError("refused")

    def refuse() -> None:
        raise error

    with Namespace(_OWN) as namespace:
        assert namespace.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(HostError) as caught:
            namespace.run(refuse)
    assert caught.value is error


def test_no_namespace() -> None:
    """A file that is no network namespace is refused, and the function is not called."""
    calls: list[None] = []
    with Namespace("/proc/self/ns/mnt") as namespace, pytest.raises(HostError) as caught:
        namespace.run(lambda: calls.append(None))
    assert str(caught.value) == (
        "cannot enter the network namespace '/proc/self/ns/mnt': Invalid argument; give the file of a network namespace"
    )
    assert calls == []


def test_signal_meanwhile() -> None:
    """The exception of a signal is raised when the function has ended, not while it still changes something."""
    readable, writable = os.pipe()

    def interrupt(_number: int, _frame: object) -> None:
        os.write(writable, bytes(1))
        raise _SignalError

    steps = 0

    def work() -> None:
        nonlocal steps
        # Python calls no handler for a signal that comes just before the wait for a lock begins, until another signal
        # interrupts the wait: outside this test the function ends, and with it the wait.
        is_handled = False
        while not is_handled:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            is_handled = bool(select.select([readable], [], [], _AGAIN_SECONDS)[0])
        for _ in range(_STEPS):
            # The first byte is the handler's.
            os.write(writable, os.read(readable, 1))
            steps += 1

    with ExitStack() as undo:
        undo.callback(os.close, readable)
        undo.callback(os.close, writable)
        undo.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, interrupt))
        namespace = undo.enter_context(Namespace(_OWN))
        with pytest.raises(_SignalError):
            namespace.run(work)
        assert steps == _STEPS
