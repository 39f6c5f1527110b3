"""Unix stream sockets at paths of any length (unix(7) limits ``sun_path`` to 107 bytes and a NUL)."""

from __future__ import annotations

import os
import struct
from _socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET
from _socket import socket as connection  # without the enumerations and selectors that the socket module loads

_INT = struct.Struct("i")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def connect(path: str, seconds: float) -> connection:
    """A connection to the socket at ``path``; its timeout stays ``seconds``.

    :raise OSError: ENOENT, ECONNREFUSED, EACCES, ...
    """
    opened = connection(AF_UNIX, SOCK_STREAM)
    opened.settimeout(seconds)
    try:
        _at(path, opened.connect)
    except OSError:
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


def _at(path: str, use: Callable[[str], None]) -> None:
    directory, name = os.path.split(path)
    parent = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{parent}/{name}")
    finally:
        os.close(parent)
