"""Relays the terminal of a container in the foreground to this process's own terminal."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import tempfile
import termios
from typing import TYPE_CHECKING

from kata_runtime.errors import HostError
from kata_runtime.oci.terminal import raw_terminal, terminal_size, window_size

if TYPE_CHECKING:
    from contextlib import ExitStack

_READ_BYTES = 32 * 1024


class ForegroundTerminal:
    """Receives the master of a container's terminal as an engine would, and relays it to descriptors 0 and 1."""

    def __init__(self, undo: ExitStack) -> None:
        """``undo`` closes it and restores this process's terminal. :raise OSError: it cannot be created."""
        self._undo = undo
        directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="kata-runtime-"))
        self.console_socket = os.path.join(directory, "console")
        self._listener = undo.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(self.console_socket)
        self._listener.listen(1)
        self._master = -1
        self._typed = b""
        self._reads_input = True

    def take(self) -> None:
        """Receive the master, which must have been sent already. :raise HostError: it has not."""
        self._listener.setblocking(False)
        try:
            connection, _ = self._listener.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, _READ_BYTES, 1)
            (self._master,) = descriptors
        except (OSError, ValueError) as error:
            raise HostError("the container's terminal was not received") from error
        self._undo.callback(os.close, self._master)
        os.set_blocking(self._master, False)
        self._undo.enter_context(raw_terminal(0))
        self.resize()

    def resize(self) -> None:
        """Set the container's terminal to the size of ours; the kernel sends SIGWINCH to its shim."""
        size = terminal_size(0) or terminal_size(1)
        if size is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, window_size(*size))

    def events(self) -> dict[int, int]:
        """The poll(2) events to wait for, by descriptor."""
        wanted = {self._master: select.POLLIN | (select.POLLOUT if self._typed else 0)}
        if self._reads_input and not self._typed:
            wanted[0] = select.POLLIN
        return wanted

    def serve(self, ready: dict[int, int]) -> None:
        """Relay as much as possible without blocking."""
        if 0 in ready:
            self._typed = _read(0)
            self._reads_input = bool(self._typed)
        if self._typed:
            try:
                self._typed = self._typed[os.write(self._master, self._typed) :]
            except BlockingIOError:
                pass
            except OSError:  # EIO: no process has the terminal open any more
                self._typed, self._reads_input = b"", False
        if ready.get(self._master, 0) & ~select.POLLOUT:
            _write(_read(self._master))

    def drain(self) -> None:
        """Relay the rest of the output after the container has ended."""
        while data := _read(self._master):
            _write(data)


def _read(fd: int) -> bytes:
    """The bytes that can be read now; none at the end."""
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:  # EIO: the end of a master; EAGAIN: no data yet
        return b""


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
