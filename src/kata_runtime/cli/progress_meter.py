"""A progress line on standard error for long operations."""

from __future__ import annotations

import os
import time

from kata_runtime.cli.streams import write_note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_QUIET_SECONDS = 1.0
_STEP_SECONDS = 0.2


class Meter:
    """A line that is rewritten in place; not shown without a terminal, nor for operations of less than a second."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = self._shown_at = time.monotonic()
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._width:
            self._write(f"\r{' ' * self._width}\r")

    def show(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done."""
        now = time.monotonic()
        elapsed = now - self._started
        if elapsed < _QUIET_SECONDS or now - self._shown_at < _STEP_SECONDS or not done or not os.isatty(2):
            return
        self._shown_at = now
        rate = done / elapsed
        text = f"{done} of {total} {self._what}, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
        self._width = max(self._width, len(text))
        self._write(f"\r{text:<{self._width}}")

    @staticmethod
    def _write(text: str) -> None:
        write_note(text.encode())
