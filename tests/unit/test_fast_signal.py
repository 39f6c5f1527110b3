"""The light signal functions and constants against the standard library's."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime import fast_signal

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = [name for name in fast_signal.__all__ if name.startswith("SIG")]
_FUNCTIONS = [name for name in fast_signal.__all__ if not name.startswith("SIG")]


@pytest.fixture
def _usual_handler() -> Iterator[None]:
    """Restore the handler of SIGUSR1 and the signal mask afterwards."""
    handler = signal.getsignal(signal.SIGUSR1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_all_names_are_compared() -> None:
    """The module exports the constants and functions that the tests below compare, and no others."""
    assert sorted(_NUMBERS + _FUNCTIONS) == sorted(fast_signal.__all__)
    assert _FUNCTIONS == [
        "getsignal", "pidfd_send_signal", "pthread_sigmask", "set_wakeup_fd", "signal", "valid_signals",
    ]  # fmt: skip


@pytest.mark.parametrize("name", _NUMBERS)
def test_constants_have_the_original_values(name: str) -> None:
    """A constant is a plain integer, equal to the enumeration's member."""
    light: Any = getattr(fast_signal, name)
    assert type(light) is int
    assert light == getattr(signal, name)


def test_valid_signals_are_the_same() -> None:
    """The set of valid signals equals the original's, in plain integers."""
    light = fast_signal.valid_signals()
    assert light == signal.valid_signals()
    assert {type(number) for number in light} == {int}


@pytest.mark.usefixtures("_usual_handler")
def test_handlers_are_shared_with_the_original() -> None:
    """A handler that one module sets is the one that the other reports, and gets the signal's number."""
    arrived: list[int] = []

    def handler(number: int, _frame: object) -> None:
        arrived.append(number)

    fast_signal.signal(signal.SIGUSR1, handler)
    assert signal.getsignal(signal.SIGUSR1) is handler
    signal.raise_signal(signal.SIGUSR1)
    assert arrived == [signal.SIGUSR1]
    assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) is handler
    assert fast_signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.usefixtures("_usual_handler")
def test_masks_are_shared_with_the_original() -> None:
    """A signal that one module blocks is in the mask that the other reports, and is delivered when it is unblocked."""
    arrived: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: arrived.append(number))
    before = fast_signal.pthread_sigmask(fast_signal.SIG_BLOCK, {signal.SIGUSR1})
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGUSR1}
    os.kill(os.getpid(), signal.SIGUSR1)
    assert arrived == []
    assert fast_signal.pthread_sigmask(fast_signal.SIG_SETMASK, before) == before | {signal.SIGUSR1}
    assert arrived == [signal.SIGUSR1]


@pytest.mark.usefixtures("_usual_handler")
@pytest.mark.parametrize("library", [fast_signal, signal], ids=["light", "original"])
def test_signals_reach_a_pidfd(library: Any) -> None:
    """pidfd_send_signal delivers the signal to the process behind the descriptor."""
    arrived: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: arrived.append(number))
    descriptor = os.pidfd_open(os.getpid())
    try:
        library.pidfd_send_signal(descriptor, signal.SIGUSR1)
    finally:
        os.close(descriptor)
    assert arrived == [signal.SIGUSR1]


@pytest.mark.usefixtures("_usual_handler")
@pytest.mark.parametrize("library", [fast_signal, signal], ids=["light", "original"])
def test_numbers_are_written_to_the_wakeup_descriptor(library: Any) -> None:
    """set_wakeup_fd takes effect in both modules, and returns what was set before."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    readable, writable = os.pipe2(os.O_NONBLOCK)
    try:
        before = library.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.raise_signal(signal.SIGUSR1)
        assert signal.set_wakeup_fd(before) == writable
        assert os.read(readable, 8) == bytes([signal.SIGUSR1])
    finally:
        os.close(readable)
        os.close(writable)
