"""The progress line as a real terminal gets it."""

from __future__ import annotations

import os
import pty
import select
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kata_runtime.cli.progress_meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = b"\0"
_SECONDS = 10.0
_LINES = ("1000 of 5000 rules, 500/s, 8 s left", "4000 of 5000 rules, 1000/s, 1 s left")


@contextmanager
def _terminal() -> Iterator[Callable[[], bytes]]:
    """Descriptor 2 is a terminal; what was written to it. No fixture: pytest would take the descriptor back."""
    before = os.dup(2)
    ours, theirs = pty.openpty()
    try:
        tty.setraw(theirs)
        os.dup2(theirs, 2)

        def written() -> bytes:
            # The kernel passes bytes on in its own time: all before the mark are there when the mark is.
            os.write(theirs, _MARK)
            data = b""
            while not data.endswith(_MARK):
                assert select.select([ours], [], [], _SECONDS)[0], data
                data += os.read(ours, 4096)
            return data.removesuffix(_MARK)

        yield written
    finally:
        os.dup2(before, 2)
        for descriptor in (before, ours, theirs):
            os.close(descriptor)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long the meter has been there."""
    now = [100.0]
    monkeypatch.setattr("kata_runtime.cli.progress_meter.time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def test_line_at_a_terminal(clock: Callable[[float], None]) -> None:
    """The line comes after a second, is rewritten in place, padded over a longer one, and wiped at the end."""
    width = len(_LINES[1])
    with _terminal() as written:
        with Meter("rules") as meter:
            for seconds, done, expected in (
                (0.9, 900, ""),
                (2, 0, ""),
                (2, 1000, f"\r{_LINES[0]}"),
                (2.1, 1050, ""),
                (4, 4000, f"\r{_LINES[1]}"),
                (5, 5000, f"\r{'5000 of 5000 rules, 1000/s, 0 s left':<{width}}"),
                (5000, 5000, f"\r{'5000 of 5000 rules, 1/s, 0 s left':<{width}}"),
            ):
                clock(seconds)
                meter.show(done, 5000)
                assert written().decode() == expected
        assert written().decode() == f"\r{' ' * width}\r"


def test_nothing_for_short_work(clock: Callable[[float], None]) -> None:
    """Work that is done within a second leaves the terminal alone, at its end too."""
    with _terminal() as written:
        with Meter("rules") as meter:
            clock(0.9)
            meter.show(5000, 5000)
        assert written() == b""


def test_closed_standard_error(clock: Callable[[float], None]) -> None:
    """A standard error that goes away while the line is shown does not end the work."""
    with _terminal() as written:
        with Meter("rules") as meter:
            clock(2)
            meter.show(1000, 5000)
            os.close(2)
            clock(3)
            meter.show(2000, 5000)
        assert written().decode() == f"\r{_LINES[0]}"
