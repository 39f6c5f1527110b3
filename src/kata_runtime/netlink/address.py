"""Interface addresses: RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR (rtnetlink(7), include/uapi/linux/if_addr.h)."""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import InterfaceAddress, IpAddress
from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    pack_attribute,
    parse_attributes,
    unpack_text,
    unpack_u32,
)

# include/uapi/linux/rtnetlink.h
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254

# include/uapi/linux/if_addr.h
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_IFA_BROADCAST = 4
_IFA_FLAGS = 8
IFA_F_NODAD = 0x02
IFA_F_PERMANENT = 0x80

_HEADER = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
# Bytes of an address of each family.
ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}


class Address(
    NamedTuple(
        "_Address",
        [
            ("index", int),
            ("value", InterfaceAddress),
            ("flags", int),
            ("scope", int),
            ("label", str),
        ],
    )
):
    """One address of interface ``index``."""

    # Only the functional form allows a field with the name of a method of tuples, index().
    __slots__ = ()

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.value.address.family


def add_address(index: int, value: InterfaceAddress, *, broadcast: IpAddress | None = None) -> Request:
    """Give an interface an address, as ``ip address add`` does (no broadcast address unless one is given).

    IPv6 skips duplicate address detection (IFA_F_NODAD): the operator chose the address, and while it is
    tentative for a second or more, nothing can be bound to it nor sent from it.
    """
    flags = IFA_F_NODAD if value.address.family == AF_INET6 else 0
    payload = _pack(index, value, flags)
    if broadcast is not None:
        payload += pack_attribute(_IFA_BROADCAST, broadcast)
    return Request(
        f"add address {value} to interface {index}",
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        payload,
    )


def dump_addresses(family: int = 0) -> Request:
    """Ask for the addresses of all interfaces; ``family`` 0 is all families."""
    return Request("list addresses", RTM_GETADDR, NLM_F_DUMP, _HEADER.pack(family, 0, 0, 0, 0))


def unpack_address(payload: bytes) -> Address:
    """The address that an RTM_NEWADDR or RTM_DELADDR describes.

    :raise ProtocolError: the bytes break the format.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"an address message of {len(payload)} bytes")
    family, prefix_length, flags, scope, index = _HEADER.unpack_from(payload)
    attributes = parse_attributes(payload[_HEADER.size :])
    # IFA_ADDRESS is the peer's on point-to-point links; the own one is IFA_LOCAL where both are there.
    address = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    if len(address) != ADDRESS_BYTES.get(family) or prefix_length > 8 * len(address):
        raise ProtocolError(f"an address of {len(address)} bytes and {prefix_length} bits in family {family}")
    if _IFA_FLAGS in attributes:
        flags = unpack_u32(attributes[_IFA_FLAGS])  # the header holds the low 8 bits only
    value = InterfaceAddress(IpAddress(address), prefix_length)
    return Address(index, value, flags, scope, unpack_text(attributes.get(_IFA_LABEL, b"")))


def addresses_of(messages: list[Message]) -> list[Address]:
    """The IPv4 and IPv6 addresses of a dump, in the kernel's order.

    :raise ProtocolError: the bytes break the format.
    """
    return [
        unpack_address(message.payload)
        for message in messages
        if message.type == RTM_NEWADDR and message.payload[:1] in (b"\x02", b"\x0a")
    ]


def _pack(index: int, value: InterfaceAddress, flags: int) -> bytes:
    address = value.address
    # Addresses in 127.0.0.0/8 get scope host, as ip-address(8) gives them by default.
    scope = RT_SCOPE_HOST if len(address) == 4 and address[0] == 127 else RT_SCOPE_UNIVERSE
    return (
        _HEADER.pack(address.family, value.prefix_length, flags, scope, index)
        + pack_attribute(_IFA_LOCAL, address)
        + pack_attribute(_IFA_ADDRESS, address)
    )
