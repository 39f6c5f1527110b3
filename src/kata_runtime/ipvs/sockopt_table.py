"""Servers read by socket options, the older interface of IPVS: a quarter of netlink's bytes, a tenth of its time.

Netlink makes 33 attributes of a server, and a file of /proc is searched from its head at each page. Here the kernel
fills one entry of fixed layout. It has what all listings show, but for IPv4 alone, without tunnels, and with counters
of 32 bits. Where that is not all, a service is left to netlink.
Source: include/uapi/linux/ip_vs.h; net/netfilter/ipvs/ip_vs_ctl.c, do_ip_vs_get_ctl.
"""

from __future__ import annotations

import struct
from _socket import AF_INET
from itertools import islice, tee

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.attributes import NOT_COUNTED, forwarding_of
from kata_runtime.ipvs.model import Forwarding, Server, ServerKey, ServerSpec, Statistics
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from kata_runtime.ipvs.model import ServiceKey

    T = TypeVar("T")

    class Guest(Protocol):
        """A kernel whose socket options can be read."""

        def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
            """Answers of the sizes asked for, in pieces."""
            ...
else:
    from _collections import deque

# IP_VS_SO_GET_SERVICES, IP_VS_SO_GET_DESTS
_GET_SERVICES, _GET_SERVERS = 1154, 1156
# The identity of a service, as struct ip_vs_service_entry and struct ip_vs_get_dests begin: protocol, address, port
# and firewall mark, the middle two in network byte order.
_KEY = struct.Struct("=Hxx4s2sxxI")
_NUMBER = struct.Struct("=I")
_MARK_OFFSET = 12
_SERVICES_HEAD_BYTES = 8  # struct ip_vs_get_services without its entries
_SERVICE = struct.Struct("=16s28xI56x")  # struct ip_vs_service_entry: the identity, num_dests
_NO_MARK = bytes(4)
_HEAD_BYTES = 24  # struct ip_vs_get_dests without its entries
# struct ip_vs_dest_entry: address, port, flags, weight, thresholds, three numbers of connections; its counters
# (struct ip_vs_stats_user) are connections, packets, bytes, and the rates.
_ENTRY = struct.Struct("=4s2sxxIIIIIII4x III4xQQ IIIII4x")
# So many requests go together; their answers, with 20 servers each 1 MiB, cross the port while others are made.
_TOGETHER = 512
# What the agent takes at most for one answer.
_ANSWER_BYTES = 8 * 1024 * 1024
# While fewer bytes were counted in a direction, none of the other counters has reached 2^32: a packet has at least 20
# bytes and a connection one packet, and a rate is at most an eighth of what was counted (ip_vs_est.c).
_EXACT_BYTES = 1 << 35
_NO_ENTRY = bytes(_ENTRY.size)


class ServerDetails(NamedTuple):
    """Which details of servers are needed besides those in every entry."""

    statistics: bool
    tunnels: bool


def covers(key: ServiceKey) -> bool:
    """Whether the interface knows services of this kind."""
    return key.family == AF_INET


def counts(guest: Guest, keys: Sequence[ServiceKey]) -> list[int | None]:
    """How many servers each service has; None for those that the interface does not list.

    :raise KernelError: the kernel refused. :raise ProtocolError: the answer is broken.
    """
    counted = _counted(guest, len(keys))
    return [counted.get(_packed(key)) for key in keys]


def servers(
    guest: Guest, keys: Sequence[ServiceKey], details: ServerDetails, show: Callable[[Server], T]
) -> Iterator[list[T] | None]:
    """What ``show`` makes of the servers of each service, in the kernel's order.

    None where the interface lacks some of the facts. Of equal servers ``show`` may be given only the first.

    :raise KernelError: the kernel refused: one of them is gone. :raise ProtocolError: the answer is broken.
    """
    counted = _counted(guest, len(keys))
    if not counted:
        yield from [None] * len(keys)
        return

    # Servers that stand behind several services have the same entry while nothing was counted.
    @lru_cache(maxsize=1 << 13)
    def row(entry: bytes) -> T:
        return show(_server(entry, details))

    # The first requests are sent before the last ones are made: the guest, which needs longest, does not wait for them.
    asked, requests = tee(_request(counted, key) for key in keys)
    answers = _answers(guest, _GET_SERVERS, filter(None, asked))
    for request in requests:
        yield None if request is None else _rows(next(answers), row)
    for _ in answers:
        raise ProtocolError("the guest's kernel lists more virtual servers than it was asked for")


def _counted(guest: Guest, services: int) -> dict[bytes, int]:
    """How many servers each service that the interface lists has; ``services`` there are in all."""
    size = _SERVICES_HEAD_BYTES + services * _SERVICE.size
    if size > _ANSWER_BYTES or not services:
        return {}
    (answer,) = _answers(guest, _GET_SERVICES, iter([(size, _NUMBER.pack(services))]))
    counted: dict[bytes, int] = dict(_SERVICE.iter_unpack(memoryview(answer)[_SERVICES_HEAD_BYTES:]))
    for packed in [packed for packed in counted if packed[_MARK_OFFSET:] != _NO_MARK]:
        counted[packed[_MARK_OFFSET:].rjust(_KEY.size, b"\0")] = counted.pop(packed)
    return counted


def _request(counted: dict[bytes, int], key: ServiceKey) -> tuple[int, bytes] | None:
    """The size of the answer about a service's servers, and the argument that asks for it."""
    packed = _packed(key)
    count = counted.get(packed)
    if count is None:
        return None
    # Servers of another family than their service are counted, but left out: there are fewer entries then. Room for
    # one more shows whether there are more by now.
    size = _HEAD_BYTES + (count + 1) * _ENTRY.size
    return None if size > _ANSWER_BYTES else (size, packed + _NUMBER.pack(count + 1))


def _packed(key: ServiceKey) -> bytes:
    if key.mark:
        return _KEY.pack(0, bytes(4), bytes(2), key.mark)
    return _KEY.pack(key.protocol, key.address, key.port.to_bytes(2, "big"), 0)


def _answers(guest: Guest, number: int, asked: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """Cut what the guest sends into the answers.

    :raise ProtocolError: there is more or less of it than was asked for.
    """
    sizes: deque[int] = deque()

    def blocks() -> Iterator[list[tuple[int, bytes]]]:
        while block := list(islice(asked, _TOGETHER)):
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


class _LacksFactsError(Exception):
    """An entry does not tell everything about its server."""


def _rows(answer: bytes, row: Callable[[bytes], T]) -> list[T] | None:
    end = len(answer) - _ENTRY.size
    if answer[end:] != _NO_ENTRY:
        return None
    try:
        return [row(answer[start : start + _ENTRY.size]) for start in range(_HEAD_BYTES, end, _ENTRY.size)]
    except _LacksFactsError:
        return None


def _server(entry: bytes, details: ServerDetails) -> Server:
    """:raise _LacksFactsError: it is to be read from netlink."""
    address, port, flags, weight, upper, lower, active, inactive, persistent, *counted = _ENTRY.unpack(entry)
    if not any(address):
        # An entry that the kernel did not fill: there are fewer servers than it counted.
        raise _LacksFactsError
    forwarding = forwarding_of(flags)
    statistics = Statistics(*counted) if details.statistics else NOT_COUNTED
    if (
        (details.tunnels and forwarding == Forwarding.TUNNEL)
        or statistics.in_bytes >= _EXACT_BYTES
        or statistics.out_bytes >= _EXACT_BYTES
    ):
        raise _LacksFactsError
    key = ServerKey(AF_INET, address, port[0] << 8 | port[1])
    return Server(ServerSpec(key, forwarding, weight, upper, lower), active, inactive, persistent, statistics)
