"""Interfaces with details for display and monitoring: counters, and the other end of a veth pair."""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.link import RTM_GETLINK, RTM_NEWLINK, Link, unpack_link
from kata_runtime.netlink.message import NLM_F_DUMP, Message, parse_attributes, unpack_u32

# include/uapi/linux/if_link.h
_IFLA_LINK = 5
_IFLA_STATS64 = 23

_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg: family, hardware type, index, flags, change
# struct rtnl_link_stats64: packets, bytes, errors and drops, each received and sent; more follows.
_STATISTICS = struct.Struct("=8Q")


class Counters(NamedTuple):
    """The traffic of an interface since it was created."""

    received_packets: int = 0
    sent_packets: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    received_errors: int = 0
    sent_errors: int = 0
    received_dropped: int = 0
    sent_dropped: int = 0


class DetailedLink(NamedTuple):
    """``peer`` is the index of the other end of a veth, or of the lower interface, in whichever namespace it is."""

    link: Link
    counters: Counters
    peer: int


def dump_detailed_links() -> Request:
    """Ask for all interfaces with their counters."""
    return Request("list interfaces with counters", RTM_GETLINK, NLM_F_DUMP, _HEADER.pack(0, 0, 0, 0, 0))


def detailed_links_of(messages: list[Message]) -> list[DetailedLink]:
    """The interfaces of a dump.

    :raise ProtocolError: the bytes break the format.
    """
    return [unpack_detailed_link(message.payload) for message in messages if message.type == RTM_NEWLINK]


def unpack_detailed_link(payload: bytes) -> DetailedLink:
    """The interface that an RTM_NEWLINK describes.

    :raise ProtocolError: the bytes break the format.
    """
    link = unpack_link(payload)
    attributes = parse_attributes(payload[_HEADER.size :])
    statistics = attributes.get(_IFLA_STATS64)
    if statistics is not None and len(statistics) < _STATISTICS.size:
        raise ProtocolError(f"interface statistics of {len(statistics)} bytes")
    counters = Counters() if statistics is None else Counters(*_STATISTICS.unpack_from(statistics))
    peer = attributes.get(_IFLA_LINK)
    return DetailedLink(link, counters, 0 if peer is None else unpack_u32(peer))
