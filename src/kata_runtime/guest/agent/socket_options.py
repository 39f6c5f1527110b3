"""Reads socket options of the guest's kernel (getsockopt(2)): knows their sizes, not their meanings."""

from __future__ import annotations

import os
import socket
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

_PIECE_BYTES = 24 * 1024  # as in ``netlink_relay``
_FRAME_BYTES = 128 * 1024


def read_options(number: int, asked: Sequence[tuple[int, bytes]]) -> Generator[memoryview, None, None]:
    """Read the option ``number`` once for each ``(size, argument)`` of ``asked``; yield the answers in pieces.

    An answer has exactly ``size`` bytes; those that the kernel did not write are zero. The argument is at the start of
    the buffer that the kernel is given. The options are those of IPv4 (SOL_IP), which modules extend
    (net/netfilter/nf_sockopt.c).

    :raise OSError: the kernel's errno; the remaining answers are not read.
    """
    read = _getsockopt()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
        for group, size in _groups(asked):
            buffer = bytearray(size)
            view = memoryview(buffer)
            filled = 0
            for room, argument in group:
                view[filled : filled + len(argument)] = argument
                read(opened.fileno(), number, buffer, filled, room)
                filled += room
            for start in range(0, filled, _FRAME_BYTES):
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
def _getsockopt() -> Callable[[int, int, bytearray, int, int], None]:
    """getsockopt(2) itself: Python's passes no argument to the kernel, and reads at most 1,024 bytes."""
    import ctypes  # imported late: takes 0.1 s and 1 MB

    call = ctypes.CDLL(None, use_errno=True).getsockopt
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    length = ctypes.c_uint32()
    length_address = ctypes.addressof(length)
    byte = ctypes.c_char

    def read(fd: int, number: int, buffer: bytearray, offset: int, size: int) -> None:
        length.value = size
        address = ctypes.addressof(byte.from_buffer(buffer, offset))
        if call(fd, socket.SOL_IP, number, address, length_address):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    return read
