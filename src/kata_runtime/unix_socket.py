"""Unix stream sockets at paths of any length (unix(7) limits ``sun_path`` to 107 bytes and a NUL)."""

from __future__ import annotations

import errno
import os
import struct
import time
from _socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET
from _socket import socket as connection  # without the enumerations and selectors that the socket module loads

_INT = struct.Struct("i")
_TIMEVAL = struct.Struct("@ll")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def connect(path: str, seconds: float) -> connection:
    """A connection to the socket at ``path``; its timeout stays ``seconds``.

    :raise TimeoutError: the queue of the listening socket was full all the time (QEMU's holds two connections).
    :raise OSError: ENOENT, ECONNREFUSED, EACCES, ...
    """
    opened = connection(AF_UNIX, SOCK_STREAM)
    try:
        _connect_within(opened, path, seconds)
        opened.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _TIMEVAL.pack(0, 0))
        opened.settimeout(seconds)
    except BaseException:
        opened.close()
        raise
    return opened


def listen(path: str) -> connection:
    """A listening socket, made at ``path`` with mode 0600.

    :raise OSError: EADDRINUSE when something exists there, ENOENT, EACCES, ...
    """
    opened = connection(AF_UNIX, SOCK_STREAM)
    try:
        # fchmod before bind decides the mode of the socket's file without touching the process's umask.
        os.fchmod(opened.fileno(), 0o600)
        _at(path, opened.bind)
        opened.listen(1)
    except OSError:
        opened.close()
        raise
    return opened


def send_descriptors(connection: connection, data: bytes, descriptors: Sequence[int]) -> None:
    """Send ``data`` in one message, and copies of ``descriptors`` with it (SCM_RIGHTS, unix(7)).

    :raise OSError: EPIPE, ECONNRESET, EMSGSIZE, ...
    """
    connection.sendmsg([data], ancillary_of(descriptors))


def ancillary_of(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """The ancillary data of sendmsg(2) that passes copies of ``descriptors``, none without descriptors."""
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    return [(SOL_SOCKET, SCM_RIGHTS, rights)] if descriptors else []


def receive_descriptors(connection: connection, size: int, count: int) -> tuple[bytes, list[int]]:
    """Receive up to ``size`` bytes and ``count`` descriptors, which this process then has to close.

    :raise OSError: ECONNRESET, EMFILE, ...
    """
    data, ancillary, _, _ = connection.recvmsg(size, CMSG_LEN(count * _INT.size))
    descriptors = [
        descriptor
        for level, kind, rights in ancillary
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for (descriptor,) in _INT.iter_unpack(rights[: len(rights) // _INT.size * _INT.size])
    ]
    return data, descriptors


def _connect_within(opened: connection, path: str, seconds: float) -> None:
    """Connect, and wait for room in the queue of the listening socket.

    With a timeout of Python's the socket is nonblocking: connect(2) then fails at once with EAGAIN when the queue is
    full, and poll(2) does not report room. A blocking socket waits up to SO_SNDTIMEO (unix_stream_connect()).
    """
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        opened.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _TIMEVAL.pack(int(remaining), int(remaining % 1 * 1e6) or 1))
        try:
            _at(path, opened.connect)
            # After a signal whose handler returned, Python takes the interrupted connect(2) for one that continues.
            opened.getpeername()
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        else:
            return
    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _at(path: str, use: Callable[[str], None]) -> None:
    directory, name = os.path.split(path)
    parent = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{parent}/{name}")
    finally:
        os.close(parent)
