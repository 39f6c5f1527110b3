"""The host's pseudo-terminal of a container: its master is sent to the engine, its slave is relayed in raw mode."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty

from kata_runtime import unix_socket
from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import closing, contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SEND_SECONDS = 10.0
_SIZE = struct.Struct("=HHHH")  # struct winsize, ioctl_tty(2)


def hand_over_terminal(console_socket: str, rows: int, columns: int) -> None:
    """Create a terminal, send its master to the engine, and make its slave this process's terminal, in a new session.

    :raise HostError: the engine does not accept it.
    """
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        if rows and columns:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, window_size(rows, columns))
        _send(console_socket, master, os.ttyname(slave))
        os.login_tty(slave)
    finally:
        os.close(master)


def window_size(rows: int, columns: int) -> bytes:
    """A struct winsize, the argument of TIOCSWINSZ."""
    return _SIZE.pack(rows, columns, 0, 0)


def terminal_size(fd: int) -> tuple[int, int] | None:
    """Rows and columns of a terminal; None if ``fd`` is not a terminal."""
    try:
        rows, columns, _, _ = _SIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_SIZE.size)))
    except OSError:
        return None
    return rows, columns


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Put a terminal into raw mode, so that the guest's terminal interprets input; no effect on other descriptors."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _send(path: str, master: int, name: str) -> None:
    try:
        with closing(unix_socket.connect(path, _SEND_SECONDS)) as connection:
            unix_socket.send_descriptors(connection, name.encode(), [master])
    except OSError as error:
        raise HostError.of(f"cannot hand the terminal over at {path}", error) from error
