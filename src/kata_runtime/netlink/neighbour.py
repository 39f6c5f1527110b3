"""Neighbours: RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH (rtnetlink(7), include/uapi/linux/neighbour.h)."""

from __future__ import annotations

import struct

from kata_runtime.address_types import IpAddress, MacAddress
from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import ADDRESS_BYTES
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    Message,
    pack_attribute,
    parse_attributes,
)

# include/uapi/linux/rtnetlink.h
RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
RTNLGRP_NEIGH = 3

# include/uapi/linux/neighbour.h
_NDA_DST = 1
_NDA_LLADDR = 2
NUD_PERMANENT = 0x80
NTF_PROXY = 0x08

_HEADER = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, interface, state, flags, type


class Neighbour(NamedTuple):
    """Address ``address`` on interface ``interface`` has the hardware address ``mac``."""

    interface: int
    address: IpAddress
    mac: MacAddress
    state: int
    flags: int

    @property
    def is_permanent(self) -> bool:
        """Whether it was configured as permanent; proxy entries, which have no hardware address, do not count."""
        return bool(self.state & NUD_PERMANENT and not self.flags & NTF_PROXY and self.mac)


def add_neighbour(index: int, address: IpAddress, mac: MacAddress) -> Request:
    """Add it as a permanent neighbour; an existing entry is replaced."""
    payload = _pack(index, address, NUD_PERMANENT) + pack_attribute(_NDA_LLADDR, mac)
    words = f"add neighbour {address} to interface {index}"
    return Request(words, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload)


def delete_neighbour(index: int, address: IpAddress) -> Request:
    """Delete a neighbour; ENOENT if there is none."""
    words = f"delete neighbour {address} from interface {index}"
    return Request(words, RTM_DELNEIGH, 0, _pack(index, address, 0))


def dump_neighbours() -> Request:
    """Ask for the neighbours of all interfaces."""
    return Request("list neighbours", RTM_GETNEIGH, NLM_F_DUMP, _HEADER.pack(0, 0, 0, 0, 0))


def neighbours_of(messages: list[Message]) -> list[Neighbour]:
    """The IPv4 and IPv6 neighbours of a dump, or of one notification.

    :raise ProtocolError: the bytes break the format.
    """
    return [
        unpack_neighbour(message.payload)
        for message in messages
        if message.type in (RTM_NEWNEIGH, RTM_DELNEIGH) and message.payload[:1] in (b"\x02", b"\x0a")
    ]


def unpack_neighbour(payload: bytes) -> Neighbour:
    """The neighbour that an RTM_NEWNEIGH or RTM_DELNEIGH describes.

    :raise ProtocolError: the bytes break the format, or the family is another.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"a neighbour message of {len(payload)} bytes")
    family, index, state, flags, _ = _HEADER.unpack_from(payload)
    attributes = parse_attributes(payload[_HEADER.size :])
    address = attributes.get(_NDA_DST, b"")
    if len(address) != ADDRESS_BYTES.get(family):
        raise ProtocolError(f"a neighbour with an address of {len(address)} bytes in family {family}")
    return Neighbour(index, IpAddress(address), MacAddress(attributes.get(_NDA_LLADDR, b"")), state, flags)


def _pack(index: int, address: IpAddress, state: int) -> bytes:
    return _HEADER.pack(address.family, index, state, 0, 0) + pack_attribute(_NDA_DST, address)
