"""Addresses and routes in a form that can be copied to another kernel and compared between two kernels.

It has no interface indexes, which differ between kernels, and nothing that a kernel adds by itself (flags, lifetimes,
the order of attributes).
"""

from __future__ import annotations

import struct
from _socket import AF_INET6

from kata_runtime.address_types import IpAddress, MacAddress
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import (
    IFA_F_NODAD,
    IFA_F_PERMANENT,
    RTM_DELADDR,
    RTM_NEWADDR,
    Address,
    unpack_address,
)
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    iter_attributes,
    pack_attribute,
    pack_u32,
    unpack_u8,
)
from kata_runtime.netlink.route import Route, unpack_route, with_next_hops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# include/uapi/linux/if_addr.h
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_IFA_FLAGS = 8
_IFA_PROTO = 11
_IFAPROT_KERNEL_RA = 2
_IFAPROT_KERNEL_LL = 3
_IFA_F_NOPREFIXROUTE = 0x200
_CONFIGURED = (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)

_ADDRESS_HEADER = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE_HEADER_BYTES = 12  # struct rtmsg


class PortableAddress(NamedTuple):
    """An address of interface ``interface``; ``payload`` describes it without interface and flags."""

    interface: int
    is_automatic: bool
    payload: bytes


def portable_addresses(messages: list[Message], macs: Mapping[int, MacAddress]) -> list[PortableAddress]:
    """The IPv4 and IPv6 addresses of a dump; ``macs`` are those of the interfaces, where they are known.

    An automatic address is one that the kernel made from the hardware address or from a router advertisement; the other
    kernel makes it, too. Kernels before 5.18 do not mark them (IFA_PROTO): there every IPv6 address with a lifetime
    counts as automatic, and the link-local address formed from the MAC.

    :raise ProtocolError: the bytes break the format.
    """
    found = []
    for message in messages:
        if message.type == RTM_NEWADDR and message.payload[:1] in (b"\x02", b"\x0a"):
            address = unpack_address(message.payload)
            attributes = dict(iter_attributes(message.payload[_ADDRESS_HEADER.size :]))
            value = address.value
            header = _ADDRESS_HEADER.pack(address.family, value.prefix_length, 0, address.scope, 0)
            kept = [pack_attribute(kind, attributes[kind]) for kind in _CONFIGURED if kind in attributes]
            automatic = address.family == AF_INET6 and (
                _is_automatic(address, attributes) or value.address == _link_local(macs.get(address.index))
            )
            found.append(PortableAddress(address.index, automatic, header + b"".join(kept)))
    return found


def add_portable_address(payload: bytes, index: int) -> Request:
    """Give interface ``index`` the address, without the route to its network, which is copied as a route of its own.

    IPv6 skips duplicate address detection, as in ``add_address``.
    """
    family, length, _, scope, _ = _ADDRESS_HEADER.unpack_from(payload)
    flags = _IFA_F_NOPREFIXROUTE | (IFA_F_NODAD if family == AF_INET6 else 0)
    packed = _ADDRESS_HEADER.pack(family, length, 0, scope, index) + payload[_ADDRESS_HEADER.size :]
    words = f"add address {unpack_address(payload).value} to interface {index}"
    return Request(words, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, packed + pack_u32(_IFA_FLAGS, flags))


def delete_portable_address(payload: bytes, index: int) -> Request:
    """Take the address from interface ``index``."""
    family, length, _, scope, _ = _ADDRESS_HEADER.unpack_from(payload)
    packed = _ADDRESS_HEADER.pack(family, length, 0, scope, index) + payload[_ADDRESS_HEADER.size :]
    return Request(f"delete address {unpack_address(payload).value} from interface {index}", RTM_DELADDR, 0, packed)


def portable_route(route: Route, interfaces: Mapping[int, int]) -> Route:
    """The same route through other interfaces, its attributes in order of their numbers, without expiry.

    :raise KeyError: it leads through an interface that ``interfaces`` does not have.
    """
    if route.next_hops:
        hops = [hop._replace(interface=interfaces[hop.interface]) for hop in route.next_hops]
        route = with_next_hops(route, hops)
    pairs = sorted(iter_attributes(route.payload[_ROUTE_HEADER_BYTES:]))
    packed = b"".join(pack_attribute(kind, value) for kind, value in pairs)
    return unpack_route(route.payload[:_ROUTE_HEADER_BYTES] + packed)


def _link_local(mac: MacAddress | None) -> IpAddress | None:
    """The address that IPv6 forms from a MAC address (RFC 4291, appendix A); None of anything else."""
    if mac is None or not mac.is_ethernet:
        return None
    return IpAddress(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:])


def _is_automatic(address: Address, attributes: Mapping[int, bytes]) -> bool:
    origin = unpack_u8(attributes[_IFA_PROTO]) if _IFA_PROTO in attributes else 0
    return origin in (_IFAPROT_KERNEL_RA, _IFAPROT_KERNEL_LL) or not address.flags & IFA_F_PERMANENT
