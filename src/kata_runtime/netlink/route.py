"""Routes: RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE (rtnetlink(7), include/uapi/linux/rtnetlink.h)."""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress, Network
from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import ADDRESS_BYTES
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_DUMP,
    Message,
    align,
    iter_attributes,
    pack_attribute,
    pack_u32,
    unpack_u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# include/uapi/linux/rtnetlink.h
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RT_TABLE_MAIN = 254
RTPROT_REDIRECT = 1
RTPROT_KERNEL = 2
RTPROT_BOOT = 3
RTPROT_RA = 9
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_ANYCAST = 4
RTN_MULTICAST = 5
RTM_F_CLONED = 0x200

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_MULTIPATH = 9
_RTA_CACHEINFO = 12
_RTA_TABLE = 15
_RTA_MFC_STATS = 17
_RTA_VIA = 18
_RTA_ENCAP_TYPE = 21
_RTA_ENCAP = 22
_RTA_EXPIRES = 23
_RTA_PAD = 24
_RTA_UID = 25
_RTA_NH_ID = 30

# Attributes that are in a dump but not allowed in a request: state, not configuration.
_STATE = frozenset({_RTA_CACHEINFO, _RTA_MFC_STATS, _RTA_EXPIRES, _RTA_PAD, _RTA_UID})
# A route with a next-hop object repeats that object's next hops, which the kernel refuses in a request.
_IMPLIED_BY_NH_ID = frozenset({_RTA_OIF, _RTA_GATEWAY, _RTA_VIA, _RTA_MULTIPATH, _RTA_ENCAP_TYPE, _RTA_ENCAP})
# RTNH_F_PERVASIVE | RTNH_F_ONLINK; the other RTNH_F_* and RTM_F_* are state.
_CONFIGURED_FLAGS = 0x2 | 0x4

# The metric of an IPv6 route that gives none (Linux include/net/ip6_route.h, IP6_RT_PRIO_USER).
IPV6_DEFAULT_PRIORITY = 1024

_HEADER = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, weight - 1, index
_EXPIRES_TICKS = struct.Struct("=8xi20x")  # struct rta_cacheinfo, rta_expires in USER_HZ
_USER_HZ = 100
_LARGEST_INDEX = 0x7FFFFFFF
_U16 = struct.Struct("=H")


class NextHop(NamedTuple):
    """Where packets go next: ``gateway`` is None for a destination on the link itself.

    ``attributes`` are packed, without RTA_OIF: the gateway, and whatever else (encapsulation) belongs to it.
    """

    gateway: IpAddress | None
    interface: int
    weight: int = 1
    flags: int = 0
    attributes: bytes = b""


class RouteKey(NamedTuple):
    """What identifies a route within one table: the kernel refuses a second one with the same key (EEXIST)."""

    network: Network
    tos: int
    priority: int


class Route(NamedTuple):
    """One route. ``payload`` recreates it, including attributes that this class does not decode.

    ``source`` is the preferred source address; ``expires`` is in seconds, 0 for never, and not part of ``payload``: it
    changes all the time.
    """

    key: RouteKey
    table: int
    protocol: int
    scope: int
    type: int
    flags: int
    source: IpAddress | None
    next_hops: tuple[NextHop, ...]
    payload: bytes
    expires: int = 0

    @property
    def full_payload(self) -> bytes:
        """``payload`` with the expiry."""
        return self.payload + (pack_u32(_RTA_EXPIRES, self.expires) if self.expires else b"")


def new_route(
    network: Network,
    *,
    index: int,
    gateway: IpAddress | None = None,
    source: IpAddress | None = None,
    scope: int | None = None,
) -> Route:
    """A unicast route of the main table as ``ip route add`` would make it (protocol boot).

    ``scope`` defaults to link without a gateway, universe with one; IPv6 knows no scopes.
    """
    family, prefix_length = network.family, network.prefix_length
    if scope is None:
        scope = RT_SCOPE_UNIVERSE if gateway or family == AF_INET6 else RT_SCOPE_LINK
    priority = IPV6_DEFAULT_PRIORITY if family == AF_INET6 else 0
    payload = _HEADER.pack(family, prefix_length, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0) + pack_u32(
        _RTA_TABLE, RT_TABLE_MAIN
    )
    if prefix_length:
        payload += pack_attribute(_RTA_DST, network.address)
    if priority:
        payload += pack_u32(_RTA_PRIORITY, priority)
    if source:
        payload += pack_attribute(_RTA_PREFSRC, source)
    if gateway:
        payload += pack_attribute(_RTA_GATEWAY, gateway)
    return unpack_route(payload + pack_u32(_RTA_OIF, index))


def add_route(route: Route, flags: int) -> Request:
    """Put ``route`` into its table.

    ``flags``: NLM_F_CREATE with NLM_F_EXCL as ``ip route add``, with NLM_F_REPLACE as ``replace``, with
    NLM_F_APPEND as ``append``; alone it puts an IPv4 route before those of the same key.
    """
    return Request(f"add route {_words(route)}", RTM_NEWROUTE, flags, route.full_payload)


def delete_route(route: Route) -> Request:
    """Delete exactly this route from its table; ESRCH when there is none."""
    return Request(f"delete route {_words(route)}", RTM_DELROUTE, 0, route.payload)


def dump_routes(family: int) -> Request:
    """Ask for the routes of a family, all tables."""
    return Request("list routes", RTM_GETROUTE, NLM_F_DUMP, _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def routes_of(messages: Sequence[Message], family: int) -> list[Route]:
    """The routes of ``family`` in a dump, in the kernel's order, without cached clones.

    A kernel without IPv6 answers with the routes of the families it has: hence the filter.

    :raise ProtocolError: the bytes break the format.
    """
    found = []
    for message in messages:
        if message.type != RTM_NEWROUTE or message.payload[:1] != bytes([family]):
            continue
        if len(message.payload) < _HEADER.size:
            raise ProtocolError(f"a route message of {len(message.payload)} bytes")
        if not _HEADER.unpack_from(message.payload)[8] & RTM_F_CLONED:
            found.append(unpack_route(message.payload))
    return found


def unpack_route(payload: bytes) -> Route:
    """The IPv4 or IPv6 route that an RTM_NEWROUTE describes.

    :raise ProtocolError: the bytes break the format, or the family is another.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"a route message of {len(payload)} bytes")
    family, length, source_length, tos, table, protocol, scope, kind, flags = _HEADER.unpack_from(payload)
    width = ADDRESS_BYTES.get(family)
    if width is None or length > 8 * width:
        raise ProtocolError(f"a route to {length} bits in address family {family}")
    pairs = list(iter_attributes(payload[_HEADER.size :]))
    attributes = dict(pairs)
    destination = attributes.get(_RTA_DST, bytes(width))
    if len(destination) != width:
        raise ProtocolError(f"a route to an address of {len(destination)} bytes in family {family}")
    flags &= _CONFIGURED_FLAGS
    dropped = _STATE | _IMPLIED_BY_NH_ID if _RTA_NH_ID in attributes else _STATE
    hops = tuple(_next_hops(attributes, flags))
    header = _HEADER.pack(family, length, source_length, tos, table, protocol, scope, kind, flags)
    try:
        kept = [
            pack_attribute(number, _pack_hops(hops) if number == _RTA_MULTIPATH else value)
            for number, value in pairs
            if number not in dropped
        ]
    except struct.error:
        # With padding that the sender left out it is more than 64 KiB.
        raise ProtocolError(f"a route with {len(hops)} next hops that are too long") from None
    return Route(
        key=RouteKey(Network(IpAddress(destination), length), tos, _number(attributes, _RTA_PRIORITY)),
        table=_number(attributes, _RTA_TABLE) or table,
        protocol=protocol,
        scope=scope,
        type=kind,
        flags=flags,
        source=_address(attributes.get(_RTA_PREFSRC)),
        next_hops=hops,
        payload=header + b"".join(kept),
        expires=_expiry(family, attributes),
    )


def with_next_hops(route: Route, hops: Sequence[NextHop]) -> Route:
    """The same route over other next hops, at least one."""
    header = list(_HEADER.unpack_from(route.payload))
    rest = [
        pack_attribute(number, value)
        for number, value in iter_attributes(route.payload[_HEADER.size :])
        if number not in _IMPLIED_BY_NH_ID and number != _RTA_NH_ID
    ]
    if len(hops) == 1:
        header[8] = hops[0].flags
        rest += [hops[0].attributes, pack_u32(_RTA_OIF, hops[0].interface)]
    else:
        rest.append(pack_attribute(_RTA_MULTIPATH, _pack_hops(hops)))
    return unpack_route(_HEADER.pack(*header) + b"".join(rest))._replace(expires=route.expires)


def _next_hops(attributes: dict[int, bytes], flags: int) -> Iterator[NextHop]:
    multipath = attributes.get(_RTA_MULTIPATH)
    if multipath is not None:
        yield from _multipath(multipath)
    elif _RTA_OIF in attributes or _RTA_GATEWAY in attributes or _RTA_VIA in attributes:
        own = (_RTA_GATEWAY, _RTA_VIA, _RTA_ENCAP_TYPE, _RTA_ENCAP)
        packed = b"".join(pack_attribute(number, attributes[number]) for number in own if number in attributes)
        yield NextHop(_gateway(attributes), _interface(_number(attributes, _RTA_OIF)), 1, flags, packed)


def _multipath(data: bytes) -> Iterator[NextHop]:
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _NEXT_HOP.size:
            raise ProtocolError(f"{end - offset} bytes where a next hop should be")
        length, flags, hops, index = _NEXT_HOP.unpack_from(data, offset)
        if not _NEXT_HOP.size <= length <= end - offset:
            raise ProtocolError(f"a next hop of {length} bytes where {end - offset} are left")
        pairs = list(iter_attributes(data[offset + _NEXT_HOP.size : offset + length]))
        packed = b"".join(pack_attribute(number, value) for number, value in pairs)
        yield NextHop(_gateway(dict(pairs)), _interface(index), hops + 1, flags & _CONFIGURED_FLAGS, packed)
        offset += align(length)


def _interface(index: int) -> int:
    # The kernel's own indexes are positive ints; others could not be packed again.
    if not 0 <= index <= _LARGEST_INDEX:
        raise ProtocolError(f"a route over interface {index}")
    return index


def _pack_hops(hops: Sequence[NextHop]) -> bytes:
    return b"".join(
        _NEXT_HOP.pack(_NEXT_HOP.size + len(hop.attributes), hop.flags, hop.weight - 1, hop.interface) + hop.attributes
        for hop in hops
    )


def _address(packed: bytes | None) -> IpAddress | None:
    return IpAddress(packed) if packed else None


def _gateway(attributes: dict[int, bytes]) -> IpAddress | None:
    via = attributes.get(_RTA_VIA)
    if via is None:
        return _address(attributes.get(_RTA_GATEWAY))
    # struct rtvia: an IPv4 route over a gateway of the other family.
    if len(via) < _U16.size or ADDRESS_BYTES.get(_U16.unpack_from(via)[0]) != len(via) - _U16.size:
        raise ProtocolError(f"a gateway of {len(via)} bytes")
    return IpAddress(via[_U16.size :])


def _number(attributes: dict[int, bytes], number: int) -> int:
    return unpack_u32(attributes[number]) if number in attributes else 0


def _expiry(family: int, attributes: dict[int, bytes]) -> int:
    if _RTA_EXPIRES in attributes:
        return unpack_u32(attributes[_RTA_EXPIRES])
    info = attributes.get(_RTA_CACHEINFO)
    if family == AF_INET or info is None:
        return 0
    if len(info) != _EXPIRES_TICKS.size:
        raise ProtocolError(f"route cache information of {len(info)} bytes")
    ticks: int = _EXPIRES_TICKS.unpack(info)[0]
    return max(1, ticks // _USER_HZ) if ticks > 0 else 0


def _words(route: Route) -> str:
    hops = " ".join(
        (f"via {hop.gateway} " if hop.gateway else "") + f"interface {hop.interface}" for hop in route.next_hops[:2]
    )
    return f"{route.key.network} {hops}".rstrip()
