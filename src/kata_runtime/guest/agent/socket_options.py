"""Reads socket options of the guest's kernel (getsockopt(2)): knows their sizes, not their meanings."""

from __future__ import annotations

import os
import socket
import struct
from bisect import bisect_right
from functools import cache
from itertools import accumulate, compress, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

# What a piece has at most: with its frame, and 2 KiB of escapes, it is three whole writes (``guest_port``). A fourth
# for a few bytes would take as long as half of another.
_PIECE_BYTES = 94 * 1024
# How many answers one piece has at most.
_TOGETHER = 256


class SocketOptions:
    """Keeps one socket open for all requests."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def read(self, number: int, sizes: Sequence[int], arguments: Sequence[bytes]) -> Generator[memoryview, None, None]:
        """Read the option ``number`` once for each size with its argument; yield the answers in pieces.

        An answer has exactly its size; bytes that the kernel did not write are zero. The argument is at the start of
        the buffer that the kernel is given. The options are those of IPv4 (SOL_IP), which modules extend
        (net/netfilter/nf_sockopt.c).

        :raise OSError: the kernel's errno; the remaining answers are not read.
        """
        read = _getsockopt()
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        for group in _groups(sizes):
            view = memoryview(read(self._socket.fileno(), number, sizes[group], arguments[group]))
            for start in range(0, len(view), _PIECE_BYTES):
                yield view[start : start + _PIECE_BYTES]


def _groups(sizes: Sequence[int]) -> Iterator[slice]:
    """Which answers are sent as one piece; nothing is read for answers of no size."""
    # Not answer by answer: a step of a loop takes as long as a tenth of the kernel's work for 20 servers.
    ends = list(accumulate(sizes))
    first = start = 0
    while first < len(ends):
        behind = min(max(bisect_right(ends, start + _PIECE_BYTES, first), first + 1), first + _TOGETHER)
        if ends[behind - 1] > start:
            yield slice(first, behind)
        first, start = behind, ends[behind - 1]


@cache
def _getsockopt() -> Callable[[int, int, Sequence[int], Sequence[bytes]], bytearray]:
    """getsockopt(2) itself: Python's passes no argument to the kernel, and reads at most 1,024 bytes.

    For 20 servers the kernel needs 10 microseconds on an emulated processor, and a loop in Python that makes the calls
    as much again. Therefore objects that stand for the arguments of the calls are made once, and read from memory that
    is filled for all calls of a group at once; ``map`` makes the calls.
    """
    import ctypes  # imported late: takes 0.1 s and 1 MB

    # PyDLL, which keeps the interpreter's lock: the agent has one thread. No argtypes: to convert by them takes longer.
    # To keep errno takes a tenth of all: what fails is called again by another.
    call = ctypes.PyDLL(None).getsockopt
    failing = ctypes.PyDLL(None, use_errno=True).getsockopt
    addresses, lengths = bytearray(8 * _TOGETHER), bytearray(4 * _TOGETHER)
    address_of = [ctypes.c_void_p.from_buffer(addresses, 8 * place) for place in range(_TOGETHER)]
    length_of = [ctypes.byref(ctypes.c_uint32.from_buffer(lengths, 4 * place)) for place in range(_TOGETHER)]
    byte = ctypes.c_char

    def read(fd: int, number: int, sizes: Sequence[int], arguments: Sequence[bytes]) -> bytearray:
        count, length = len(sizes), len(arguments[0])
        buffer = bytearray(sum(sizes))
        layouts = {size: f"{length}s{size - length}x" for size in set(sizes)}
        struct.pack_into("".join(map(layouts.__getitem__, sizes)), buffer, 0, *arguments)
        start = ctypes.addressof(byte.from_buffer(buffer))
        struct.pack_into(f"={count}Q", addresses, 0, *accumulate(sizes[:-1], initial=start))
        struct.pack_into(f"={count}I", lengths, 0, *sizes)
        results = map(call, repeat(fd, count), repeat(socket.SOL_IP), repeat(number), address_of, length_of)
        refused = next(compress(range(count), results), None)
        if refused is None:
            return buffer
        failing(fd, socket.SOL_IP, number, address_of[refused], length_of[refused])
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))

    return read
