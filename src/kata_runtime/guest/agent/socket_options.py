"""Reads socket options of the guest's kernel (getsockopt(2)): knows their sizes, not their meanings."""

from __future__ import annotations

import os
import socket
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

# A piece is sent when it has this size: a frame of it is written in few large parts (``guest_port``).
_PIECE_BYTES = 96 * 1024
_FRAME_BYTES = 128 * 1024


class SocketOptions:
    """Keeps one socket open for all requests."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self, number: int, asked: Sequence[tuple[int, bytes]]) -> Generator[memoryview, None, None]:
        """Read the option ``number`` once for each ``(size, argument)`` of ``asked``; yield the answers in pieces.

        An answer has exactly ``size`` bytes; those that the kernel did not write are zero. The argument is at the start
        of the buffer that the kernel is given. The options are those of IPv4 (SOL_IP), which modules extend
        (net/netfilter/nf_sockopt.c).

        :raise OSError: the kernel's errno; the remaining answers are not read.
        """
        read = _getsockopt()
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        for group, size in _groups(asked):
            buffer = bytearray(size)
            read(self._socket.fileno(), number, group, buffer)
            view = memoryview(buffer)
            for start in range(0, size, _FRAME_BYTES):
                yield view[start : start + _FRAME_BYTES]


def _groups(asked: Sequence[tuple[int, bytes]]) -> Iterator[tuple[list[tuple[int, bytes]], int]]:
    """Split ``asked`` into groups that are sent as one piece; yield each with its size."""
    group: list[tuple[int, bytes]] = []
    size = 0
    for one in asked:
        group.append(one)
        size += one[0]
        if size >= _PIECE_BYTES:
            yield group, size
            group, size = [], 0
    if size:
        yield group, size


@cache
def _getsockopt() -> Callable[[int, int, Sequence[tuple[int, bytes]], bytearray], None]:
    """getsockopt(2) itself: Python's passes no argument to the kernel, and reads at most 1,024 bytes."""
    import ctypes  # imported late: takes 0.1 s and 1 MB

    # No argtypes: to convert the arguments by them takes longer than the kernel needs for a service of 20 servers.
    call = ctypes.CDLL(None, use_errno=True).getsockopt
    length, address = ctypes.c_uint32(), ctypes.c_void_p()
    length_address = ctypes.c_void_p(ctypes.addressof(length))
    byte = ctypes.c_char

    def read(fd: int, number: int, asked: Sequence[tuple[int, bytes]], buffer: bytearray) -> None:
        start = ctypes.addressof(byte.from_buffer(buffer))
        filled = 0
        for size, argument in asked:
            buffer[filled : filled + len(argument)] = argument
            length.value, address.value = size, start + filled
            if call(fd, socket.SOL_IP, number, address, length_address):
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            filled += size

    return read
