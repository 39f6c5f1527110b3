"""A full-screen display that is refreshed until the user quits; the terminal is restored, whatever ends the process.

It uses the alternate screen, Rich's ``Live``, and termios(3) to read single keys. Exceptions, and signals that main
turns into exceptions, restore the terminal. For SIGKILL a guard process waits for the end of this one on a pipe, and
restores the terminal then.

Import it after ``optional_packages.require(RICH)``.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

# xterm(1): the normal screen, a visible cursor, no attributes.
_LEAVE = b"\x1b[?1049l\x1b[?25h\x1b[0m"
_KEY_BYTES = 64
_ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down"}
_QUIT = ("q", "Q", "\x03", "")


class Screen(Protocol):
    """The content of the display."""

    def refresh(self) -> None:
        """Update the data."""

    def draw(self, width: int, height: int) -> RenderableType:
        """Render the content for a terminal of this size."""

    def press(self, key: str) -> None:
        """Handle a key: a character, or "up", "down", "page up", "page down"."""


def show(screen: Screen, interval: float) -> None:
    """Show ``screen``, refreshed every ``interval`` seconds, until q or Ctrl-C; input and output are a terminal."""
    with _stoppable() as resumed, _single_keys():
        console = Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False, legacy_windows=False)
        with Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while True:
                screen.refresh()
                if not _watch(screen, live, time.monotonic() + interval, resumed):
                    return


def _watch(screen: Screen, live: Live, until: float, resumed: int) -> bool:
    """Draw, and redraw at each key, until the next refresh is due; False if the user quits."""
    while True:
        size = live.console.size
        live.update(screen.draw(size.width, size.height), refresh=True)
        left = until - time.monotonic()
        if left <= 0:
            return True
        ready = select.select([0, resumed], [], [], left)[0]
        if resumed in ready:
            os.read(resumed, _KEY_BYTES)
            live.console.set_alt_screen(True)
            live.console.show_cursor(False)
        if 0 not in ready:
            continue
        for key in _keys(os.read(0, _KEY_BYTES)):
            if key in _QUIT:
                return False
            screen.press(key)


def _keys(data: bytes) -> Iterator[str]:
    """Decode the keys in the bytes of one read; an empty key means that the terminal was hung up."""
    if not data:
        yield ""
    while data:
        sequence = next((each for each in _ARROWS if data.startswith(each)), None)
        if sequence is not None:
            yield _ARROWS[sequence]
            data = data[len(sequence) :]
        elif data[:1] == b"\x1b":
            data = data[_sequence_length(data) :]
        else:
            yield chr(data[0])
            data = data[1:]


def _sequence_length(data: bytes) -> int:
    """The bytes of the first key of ``data``, an escape sequence of ECMA-48 or the Escape key itself."""
    if data[1:2] == b"O":
        return 3  # SS3, as of F1
    if data[1:2] != b"[":
        return 1
    return next((place + 1 for place in range(2, len(data)) if 0x40 <= data[place] <= 0x7E), len(data))


@contextmanager
def _single_keys() -> Iterator[None]:
    """Read keys immediately and without echo; the terminal is restored afterwards, whatever ends this process."""
    before = termios.tcgetattr(0)
    with ExitStack() as undo:
        undo.callback(termios.tcsetattr, 0, termios.TCSANOW, before)
        _start_guard(before, undo)
        tty.setcbreak(0, termios.TCSANOW)
        yield


def _start_guard(before: list[Any], undo: ExitStack) -> None:
    """Fork the guard: it restores the terminal if the pipe from this process is closed without a byte in it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU):
                signal.signal(number, signal.SIG_IGN)
            os.close(write)
            # If the terminal is gone, too, there is nothing to restore.
            with suppress(OSError, termios.error):
                if not os.read(read, 1):
                    os.write(1, _LEAVE)
                    termios.tcsetattr(0, termios.TCSANOW, before)
        finally:
            os._exit(0)
    os.close(read)

    def release() -> None:
        with suppress(BrokenPipeError):
            os.write(write, b"q")
        os.close(write)
        os.waitpid(pid, 0)

    undo.callback(release)


@contextmanager
def _stoppable() -> Iterator[int]:
    """On Ctrl-Z restore the terminal and stop; the descriptor is readable when the process is continued."""
    before = termios.tcgetattr(0)
    with ExitStack() as undo:
        resumed, resume = os.pipe()
        undo.callback(os.close, resumed)
        undo.callback(os.close, resume)

        def stop(_number: int, _frame: object) -> None:
            own = termios.tcgetattr(0)
            os.write(1, _LEAVE)
            termios.tcsetattr(0, termios.TCSANOW, before)
            os.kill(os.getpid(), signal.SIGSTOP)
            termios.tcsetattr(0, termios.TCSANOW, own)
            os.write(resume, b"c")

        undo.callback(signal.signal, signal.SIGTSTP, signal.signal(signal.SIGTSTP, stop))
        yield resumed
