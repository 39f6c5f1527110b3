"""A picture on a terminal: whatever ends it leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import sys
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 30.0
_ROOT = Path(__file__).parents[3]
_SCRIPT = """
import signal, sys
from kata_runtime.cli.live_screen import show
from rich.text import Text

class Interrupted(BaseException):
    pass

def interrupt(number, frame):
    raise Interrupted

class Screen:
    count = 0
    keys = []
    def refresh(self):
        self.count += 1
        if sys.argv[1] == "raise" and self.count == 3:
            raise RuntimeError("the guest is gone")
    def draw(self, width, height):
        return Text(f"look {self.count} of {width}x{height} keys {self.keys}")
    def press(self, key):
        self.keys.append(key)

signal.signal(signal.SIGTERM, interrupt)
try:
    show(Screen(), 0.1 if sys.argv[1] == "raise" else 20)
except Interrupted:
    sys.exit(143)
except RuntimeError:
    sys.exit(7)
"""


class _Terminal:
    """A program on a pseudo-terminal of 80x10 that another process leads, as a shell does; what it printed so far.

    When the leader of a session ends, the kernel hangs the terminal up, and nobody can write to it any more.
    """

    def __init__(self, master: int, slave: int, reports: int) -> None:
        self.master = master
        self.slave = slave
        self._reports = reports
        self.printed = b""
        self.pid = self._report()

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def wait_for(self, text: bytes) -> None:
        """Read until ``text`` was printed."""
        end = time.monotonic() + _SECONDS
        while text not in self.printed:
            left = end - time.monotonic()
            assert left > 0, (text, self.printed)
            if select.select([self.master], [], [], left)[0]:
                self.printed += os.read(self.master, 65536)

    def status(self) -> int:
        """How the program stopped or ended (wait(2))."""
        return self._report()

    def end(self) -> int:
        """The exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(self.status())

    def _report(self) -> int:
        assert select.select([self._reports], [], [], _SECONDS)[0], self.printed
        return int.from_bytes(os.read(self._reports, 4), "little")


@contextmanager
def _on_terminal(how: str) -> Iterator[_Terminal]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (10, 80))
    reports, report = os.pipe()
    leader = os.fork()
    if leader == 0:
        _lead(slave, report, how)
    os.close(report)
    try:
        yield _Terminal(master, slave, reports)
    finally:
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        for descriptor in (master, slave, reports):
            os.close(descriptor)


def _lead(slave: int, report: int, how: str) -> NoReturn:
    """Make the terminal that of a session, run the program there, and report its pid and all that becomes of it."""
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(_ROOT / "src")}
    environment.pop("COLUMNS", None)
    environment.pop("LINES", None)
    pid = os.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", _SCRIPT, how], environment)
    os.write(report, pid.to_bytes(4, "little"))
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        os.write(report, status.to_bytes(4, "little"))
        if not os.WIFSTOPPED(status):
            signal.pause()


_SHOWN, _HIDDEN = b"\x1b[?1049h", b"\x1b[?1049l"


def _left(terminal: _Terminal, before: list[Any]) -> int:
    """The exit status, when the normal screen, the cursor and the attributes are back."""
    terminal.wait_for(_HIDDEN)
    terminal.wait_for(b"\x1b[?25h")
    status = terminal.end()
    assert terminal.attributes() == before
    return status


def test_quit() -> None:
    """Keys arrive one by one, arrows as one; q ends it, and the terminal is as before."""
    with _on_terminal("run") as terminal:
        before = terminal.attributes()
        terminal.wait_for(b"look 1 of 80x10")
        assert _SHOWN in terminal.printed
        assert terminal.attributes() != before
        os.write(terminal.master, b"a\x1b[A")
        terminal.wait_for(b"keys ['a', 'up']")
        # Other keys of several bytes, and Escape, are ignored, but not what was typed after them.
        os.write(terminal.master, b"\x1b[15;5~\x1bOP\x1bb\x1b")
        terminal.wait_for(b"keys ['a', 'up', 'b']")
        os.write(terminal.master, b"\x1b[Hq")
        assert _left(terminal, before) == 0


def test_terminated() -> None:
    """SIGTERM, which main turns into an exception, leaves the terminal as before."""
    with _on_terminal("run") as terminal:
        before = terminal.attributes()
        terminal.wait_for(b"look 1 of")
        os.kill(terminal.pid, signal.SIGTERM)
        assert _left(terminal, before) == 143


def test_exception() -> None:
    """A failing look leaves the terminal as before."""
    with _on_terminal("raise") as terminal:
        before = terminal.attributes()
        assert _left(terminal, before) == 7
        assert b"look 2 of" in terminal.printed


def test_killed() -> None:
    """SIGKILL, which nothing can catch, leaves the terminal as before, by the process beside it."""
    with _on_terminal("run") as terminal:
        before = terminal.attributes()
        terminal.wait_for(b"look 1 of")
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.end() == -signal.SIGKILL
        terminal.wait_for(b"\x1b[?1049l\x1b[?25h\x1b[0m")
        # The guard restores the attributes right after it has written.
        end = time.monotonic() + _SECONDS
        while terminal.attributes() != before:
            assert time.monotonic() < end


def test_stopped_and_continued() -> None:
    """Ctrl-Z stops it with the terminal as before; when it goes on, it is drawn again and can be quit."""
    with _on_terminal("run") as terminal:
        before = terminal.attributes()
        terminal.wait_for(b"look 1 of")
        os.kill(terminal.pid, signal.SIGTSTP)
        status = terminal.status()
        assert (os.WIFSTOPPED(status), terminal.attributes() == before) == (True, True)
        terminal.wait_for(_HIDDEN)
        terminal.printed = b""
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.wait_for(_SHOWN)
        os.write(terminal.master, b"q")
        terminal.wait_for(_HIDDEN)
        assert terminal.end() == 0
