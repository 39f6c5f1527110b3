"""Servers read by socket options, the older interface of IPVS: a quarter of netlink's bytes, a tenth of its time.

Netlink makes 33 attributes of a server, and a file of /proc is searched from its head at each page. Here the kernel
fills one entry of fixed layout. It has what all listings show, but for IPv4 alone, without tunnels, and with counters
of 32 bits. Where that is not all, a service is left to netlink.
Source: include/uapi/linux/ip_vs.h; net/netfilter/ipvs/ip_vs_ctl.c, do_ip_vs_get_ctl.
"""

from __future__ import annotations

import struct
from _socket import AF_INET
from itertools import tee

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.attributes import NOT_COUNTED, forwarding_of
from kata_runtime.ipvs.model import Forwarding, Server, ServerKey, ServerSpec, Statistics
from kata_runtime.ipvs.socket_options import ANSWER_BYTES, GET_SERVERS, NUMBER, STATISTICS, answers, is_exact
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from kata_runtime.ipvs.socket_options import Guest

    T = TypeVar("T")

_HEAD_BYTES = 24  # struct ip_vs_get_dests without its entries
# struct ip_vs_dest_entry: address, port, flags, weight, thresholds, three numbers of connections, counters.
_ENTRY = struct.Struct(f"=4s2sxxIIIIIII4x {STATISTICS}")
_NO_ENTRY = bytes(_ENTRY.size)


class ServerDetails(NamedTuple):
    """Which details of servers are needed besides those in every entry."""

    statistics: bool
    tunnels: bool


def servers(
    guest: Guest, services: Iterable[tuple[bytes, int] | None], details: ServerDetails, show: Callable[[Server], T]
) -> Iterator[list[T] | None]:
    """What ``show`` makes of the servers of each service, in the kernel's order; None where facts are missing.

    ``services`` are their identities (``socket_options.identity_of``) and how many servers they have, or None for those
    that the interface does not list. Of equal servers ``show`` may be given only the first.

    :raise KernelError: the kernel refused: one of them is gone. :raise ProtocolError: the answer is broken.
    """

    # Servers that stand behind several services have the same entry while nothing was counted.
    @lru_cache(maxsize=1 << 13)
    def row(entry: bytes) -> T:
        return show(_server(entry, details))

    # The first requests are sent before the last ones are made: the guest, which needs longest, does not wait for them.
    asked, requests = tee(None if service is None else _request(*service) for service in services)
    found = answers(guest, GET_SERVERS, filter(None, asked))
    for request in requests:
        yield None if request is None else _rows(next(found), row)
    for _ in found:
        raise ProtocolError("the guest's kernel lists more virtual servers than it was asked for")


def _request(identity: bytes, count: int) -> tuple[int, bytes] | None:
    """The size of the answer about a service's servers, and the argument that asks for it."""
    # Servers of another family than their service are counted, but left out: there are fewer entries then. Room for
    # one more shows whether there are more by now.
    size = _HEAD_BYTES + (count + 1) * _ENTRY.size
    return None if size > ANSWER_BYTES else (size, identity + NUMBER.pack(count + 1))


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
    if (details.tunnels and forwarding == Forwarding.TUNNEL) or not is_exact(statistics):
        raise _LacksFactsError
    key = ServerKey(AF_INET, address, port[0] << 8 | port[1])
    return Server(ServerSpec(key, forwarding, weight, upper, lower), active, inactive, persistent, statistics)
