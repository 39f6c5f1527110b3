"""Network interfaces: RTM_NEWLINK, RTM_GETLINK (rtnetlink(7), include/uapi/linux/if_link.h)."""

from __future__ import annotations

import struct
from _socket import AF_INET6

from kata_runtime.address_types import MacAddress
from kata_runtime.errors import InputError, ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_DUMP,
    Message,
    pack_attribute,
    pack_nested,
    pack_text,
    pack_u8,
    pack_u32,
    parse_attributes,
    unpack_text,
    unpack_u8,
    unpack_u32,
)

# include/uapi/linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_GETLINK = 18
RTNLGRP_LINK = 1
_RTEXT_FILTER_SKIP_STATS = 8

# include/uapi/linux/if_link.h
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_OPERSTATE = 16
_IFLA_LINKINFO = 18
_IFLA_AF_SPEC = 26
_IFLA_EXT_MASK = 29
_IFLA_CARRIER = 33
_IFLA_LINK_NETNSID = 37
_IFLA_PARENT_DEV_NAME = 56
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_TUN_TYPE = 3
_IFLA_TUN_PERSIST = 6
_IFLA_TUN_MULTI_QUEUE = 7
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1

# include/uapi/linux/if.h
IFF_UP = 0x1
IFF_LOOPBACK = 0x8

# include/uapi/linux/if_arp.h
ARPHRD_ETHER = 1

# include/uapi/linux/if_tun.h, IFF_TAP, as IFLA_TUN_TYPE reports it; IFF_TUN is 1
TUN_TYPE_TAP = 2

# include/uapi/linux/if.h, IFNAMSIZ with the NUL
_NAME_BYTES = 16

_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg: family, hardware type, index, flags, change


class Link(
    NamedTuple(
        "_Link",
        [
            ("index", int),
            ("name", str),
            ("mac", MacAddress),
            ("mtu", int),
            ("flags", int),
            ("operstate", int),
            ("carrier", bool),
            ("master", int),
            ("kind", str),
            ("tun_type", int | None),
            ("tun_multi_queue", bool),
            ("tun_persistent", bool),
            ("parent", str),
            ("hardware", int),
            ("lower", int),
        ],
    )
):
    """An interface as the kernel describes it; ``tun_*`` mean something only when ``kind`` is "tun".

    ``operstate`` is RFC 2863's (6: up); ``parent`` the name of the device behind it, for example "virtio3".
    ``hardware`` is ARPHRD_*; ``lower`` its lower interface or the other end of its pair, if that is in the
    same namespace, or 0.
    """

    # Only the functional form allows a field with the name of a method of tuples, index().
    __slots__ = ()

    @property
    def is_up(self) -> bool:
        """Whether it was set up (IFF_UP), with or without a carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_loopback(self) -> bool:
        """Whether it is a loopback interface."""
        return bool(self.flags & IFF_LOOPBACK)


def get_link(which: str | int) -> Request:
    """Ask for one interface by name or index; no such one is ENODEV."""
    if isinstance(which, str):
        head, tail = _HEADER.pack(0, 0, 0, 0, 0), pack_text(_IFLA_IFNAME, _checked_name(which))
    else:
        head, tail = _HEADER.pack(0, 0, which, 0, 0), b""
    payload = head + tail + pack_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Request(f"look up interface {which!r}", RTM_GETLINK, 0, payload)


def dump_links() -> Request:
    """Ask for all interfaces."""
    payload = _HEADER.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Request("list interfaces", RTM_GETLINK, NLM_F_DUMP, payload)


def set_link(
    index: int,
    *,
    name: str | None = None,
    mac: MacAddress | None = None,
    mtu: int | None = None,
    up: bool | None = None,
    master: int | None = None,
) -> Request:
    """Change the attributes given; ``master`` is the index of a bridge.

    The kernel applies them one by one: after a refusal some may have changed.
    """
    flags = IFF_UP if up else 0
    change = 0 if up is None else IFF_UP
    payload = _HEADER.pack(0, 0, index, flags, change)
    words = []
    if mac is not None:
        payload += pack_attribute(_IFLA_ADDRESS, mac)
        words.append(f"address {mac}")
    if mtu is not None:
        payload += pack_u32(_IFLA_MTU, mtu)
        words.append(f"mtu {mtu}")
    if name is not None:
        payload += pack_text(_IFLA_IFNAME, _checked_name(name))
        words.append(f"name {name!r}")
    if master is not None:
        payload += pack_u32(_IFLA_MASTER, master)
        words.append(f"master {master}")
    if up is not None:
        words.append("up" if up else "down")
    return Request(f"set interface {index} {' '.join(words)}", RTM_NEWLINK, 0, payload)


def without_own_addresses(index: int) -> Request:
    """Keep the kernel from making an IPv6 link-local address for an interface, so that it sends nothing by itself."""
    inet6 = pack_nested(AF_INET6, pack_u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE))
    payload = _HEADER.pack(0, 0, index, 0, 0) + pack_nested(_IFLA_AF_SPEC, inet6)
    return Request(f"keep interface {index} from making addresses", RTM_NEWLINK, 0, payload)


def unpack_link(payload: bytes) -> Link:
    """The interface that an RTM_NEWLINK describes.

    :raise ProtocolError: the bytes break the format.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"an interface message of {len(payload)} bytes")
    _, hardware, index, flags, _ = _HEADER.unpack_from(payload)
    if index < 1:
        raise ProtocolError(f"an interface with the index {index}")
    attributes = parse_attributes(payload[_HEADER.size :])
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = unpack_text(info.get(_IFLA_INFO_KIND, b""))
    tun = parse_attributes(info.get(_IFLA_INFO_DATA, b"")) if kind == "tun" else {}
    tun_type = tun.get(_IFLA_TUN_TYPE)
    return Link(
        index=index,
        name=unpack_text(attributes.get(_IFLA_IFNAME, b"")),
        mac=MacAddress(attributes.get(_IFLA_ADDRESS, b"")),
        mtu=_optional_u32(attributes.get(_IFLA_MTU)),
        flags=flags,
        operstate=_optional_u8(attributes.get(_IFLA_OPERSTATE)),
        carrier=bool(_optional_u8(attributes.get(_IFLA_CARRIER))),
        master=_optional_u32(attributes.get(_IFLA_MASTER)),
        kind=kind,
        tun_type=None if tun_type is None else unpack_u8(tun_type),
        tun_multi_queue=bool(_optional_u8(tun.get(_IFLA_TUN_MULTI_QUEUE))),
        tun_persistent=bool(_optional_u8(tun.get(_IFLA_TUN_PERSIST))),
        parent=unpack_text(attributes.get(_IFLA_PARENT_DEV_NAME, b"")),
        hardware=hardware,
        # The index of an interface in another namespace is meaningless here.
        lower=0 if _IFLA_LINK_NETNSID in attributes else _optional_u32(attributes.get(_IFLA_LINK)),
    )


def links_of(messages: list[Message]) -> list[Link]:
    """The interfaces of a dump, or of one notification.

    :raise ProtocolError: the bytes break the format.
    """
    return [unpack_link(message.payload) for message in messages if message.type == RTM_NEWLINK]


def _checked_name(name: str) -> str:
    if not 0 < len(name.encode("utf-8", "surrogateescape")) < _NAME_BYTES or "\0" in name:
        raise InputError(f"{name!r} is no interface name", hint="1 to 15 bytes are needed")
    return name


def _optional_u8(payload: bytes | None) -> int:
    return 0 if payload is None else unpack_u8(payload)


def _optional_u32(payload: bytes | None) -> int:
    return 0 if payload is None else unpack_u32(payload)
