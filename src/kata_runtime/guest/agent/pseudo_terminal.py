"""The pseudo-terminal of a container, whose descriptor crun sends to the agent."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

# include/uapi/asm-generic/ioctls.h; not worth importing the module termios.
_TIOCSWINSZ = 0x5414
_TIOCGPTPEER = 0x5441
_WINSIZE = struct.Struct("HHHH")  # struct winsize: rows, columns, pixels
_NAME_BYTES = 4096


class ConsoleSocket:
    """The socket to which ``crun --console-socket`` sends the terminal's descriptor (runc's docs/terminals.md)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listening.bind(path)
            self._listening.listen(1)
            self._listening.setblocking(False)
        except OSError:
            self._listening.close()
            raise

    def receive(self) -> int:
        """The terminal's descriptor, which crun sent before it ended.

        :raise OSError: it sent none.
        """
        connection, _ = self._listening.accept()
        with connection:
            connection.setblocking(False)
            space = socket.CMSG_SPACE(struct.calcsize("i"))
            _, ancillary, _, _ = connection.recvmsg(_NAME_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fd: int = array.array("i", data)[0]
                return fd
        raise OSError("no descriptor of a terminal")

    def close(self) -> None:
        """Stop listening."""
        self._listening.close()


class Terminal:
    """A pseudo-terminal; the user closes ``reader`` and ``writer``."""

    def __init__(self, fd: int) -> None:
        """Take over ``fd``, the agent's side of the terminal.

        :raise OSError: it is no terminal.
        """
        self.reader = fd
        # The container's side is held open, since init systems close their console and open it again; with the last
        # descriptor closed, the terminal would hang up.
        try:
            self._peer: int = fcntl.ioctl(fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            os.close(fd)
            raise
        self.writer = os.dup(fd)
        self._control = os.dup(fd)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size; the foreground process group gets SIGWINCH when it changed."""
        fcntl.ioctl(self._control, _TIOCSWINSZ, _WINSIZE.pack(rows, columns, 0, 0))

    def close(self) -> None:
        """Close the other descriptors, so that the terminal hangs up."""
        os.close(self._peer)
        os.close(self._control)
