"""Socket options of IPVS, the older interface: their numbers and layouts, and answers cut into those asked for.

Source: include/uapi/linux/ip_vs.h; net/netfilter/ipvs/ip_vs_ctl.c, do_ip_vs_get_ctl.
"""

from __future__ import annotations

import struct
from _socket import AF_INET
from itertools import chain, islice

from kata_runtime.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol

    from kata_runtime.ipvs.model import ServiceKey, Statistics

    class Guest(Protocol):
        """A kernel whose socket options and files can be read."""

        def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
            """Answers of the sizes asked for, in pieces."""
            ...

        def read_file(self, name: str) -> Iterator[bytes]:
            """A file of /proc/net, or /proc/modules, in pieces."""
            ...
else:
    from _collections import deque

# IP_VS_SO_GET_INFO, IP_VS_SO_GET_SERVICES, IP_VS_SO_GET_DESTS
GET_INFO, GET_SERVICES, GET_SERVERS = 1153, 1154, 1156
# The identity of a service, as struct ip_vs_service_entry and struct ip_vs_get_dests begin: protocol, address, port
# and firewall mark, the middle two in network byte order.
IDENTITY = struct.Struct("=Hxx4s2sxxI")
NUMBER = struct.Struct("=I")
# What the agent takes at most for one answer.
ANSWER_BYTES = 8 * 1024 * 1024
# So many requests go together; their answers, with 20 servers each 1 MiB, cross the port while others are made.
_TOGETHER = 512
# struct ip_vs_stats_user: connections, packets, bytes, and the rates.
STATISTICS = "III4xQQIIIII4x"
_MARK_OFFSET = 12
_NO_MARK = bytes(4)
# While fewer bytes were counted in a direction, none of the other counters has reached 2^32: a packet has at least 20
# bytes and a connection one packet, and a rate is at most an eighth of what was counted (ip_vs_est.c).
_EXACT_BYTES = 1 << 35


def is_exact(statistics: Statistics) -> bool:
    """Whether counters that were read with 32 bits are whole."""
    return statistics.in_bytes < _EXACT_BYTES and statistics.out_bytes < _EXACT_BYTES


def covers(key: ServiceKey) -> bool:
    """Whether the interface knows services of this kind."""
    return key.family == AF_INET


def identity_of(key: ServiceKey) -> bytes:
    """The identity of a service of IPv4."""
    if key.mark:
        return IDENTITY.pack(0, bytes(4), bytes(2), key.mark)
    return IDENTITY.pack(key.protocol, key.address, key.port.to_bytes(2, "big"), 0)


def normalised(identity: bytes) -> bytes:
    """A listed identity in the form of ``identity_of``: the kernel lists a service with a mark with a protocol, too."""
    mark = identity[_MARK_OFFSET:]
    return identity if mark == _NO_MARK else mark.rjust(IDENTITY.size, b"\0")


def answers(guest: Guest, number: int, asked: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """What the guest answers to ``asked``: sizes of answers, and arguments for the kernel. It may be nothing.

    :raise KernelError: the kernel refused. :raise ProtocolError: there is more or less of it than was asked for.
    """
    first = next(asked, None)
    if first is None:
        return
    requests = chain([first], asked)
    sizes: deque[int] = deque()

    def blocks() -> Iterator[list[tuple[int, bytes]]]:
        while block := list(islice(requests, _TOGETHER)):
            sizes.extend(size for size, _ in block)
            yield block

    parts: list[bytes] = []
    there = 0
    for piece in guest.socket_options(number, blocks()):
        parts.append(piece)
        there += len(piece)
        if sizes and there < sizes[0]:
            continue
        held, offset = b"".join(parts), 0
        while sizes and there - offset >= sizes[0]:
            yield held[offset : offset + sizes[0]]
            offset += sizes.popleft()
        parts, there = [held[offset:]], there - offset
        if there and not sizes:
            raise ProtocolError("the guest sent more of a socket option than was asked for")
    if sizes:
        raise ProtocolError("a socket option of the guest is cut short")
