"""Traffic control: an ingress queueing discipline, and a filter that redirects every packet to another interface.

tc(8), tc-u32(8), tc-mirred(8); include/uapi/linux/rtnetlink.h and pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h.
"""

from __future__ import annotations

import struct
from _socket import htons

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.message import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    pack_attribute,
    pack_nested,
    pack_text,
    parse_attributes,
    unpack_text,
)

# include/uapi/linux/rtnetlink.h
RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_NEWTFILTER = 44
RTM_GETTFILTER = 46
_TCA_KIND = 1
_TCA_OPTIONS = 2

# include/uapi/linux/pkt_sched.h
_TC_H_INGRESS = 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000

# include/uapi/linux/pkt_cls.h
_TCA_U32_SEL = 5
_TCA_U32_ACT = 7
_TC_U32_TERMINAL = 1
_TCA_ACT_KIND = 1
_TCA_ACT_OPTIONS = 2
_TC_ACT_STOLEN = 4

# include/uapi/linux/tc_act/tc_mirred.h
_TCA_MIRRED_PARMS = 2
_TCA_EGRESS_REDIR = 1

_ETH_P_ALL = 0x0003  # include/uapi/linux/if_ether.h

_HEADER = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_SELECTOR = struct.Struct("=BBBxHHhhI")  # struct tc_u32_sel: flags, offset shift, keys, masks and offsets
_KEY = struct.Struct("=IIii")  # struct tc_u32_key: mask, value, offset, offset mask
_MIRRED = struct.Struct("=IIiiiiI")  # struct tc_mirred: index, capabilities, action, counts, what to do, interface


class Filter(NamedTuple):
    """A filter of the ingress queueing discipline: its place (``preference``) and its kind, for example "u32"."""

    preference: int
    kind: str


def add_ingress(index: int) -> Request:
    """Add an ingress queueing discipline to interface ``index``; EEXIST when it has one."""
    payload = _HEADER.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0) + pack_text(_TCA_KIND, "ingress")
    return Request(f"add an ingress qdisc to interface {index}", RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, payload)


def delete_ingress(index: int) -> Request:
    """Delete the ingress queueing discipline and its filters; without one EINVAL or ENOENT, by kernel version."""
    payload = _HEADER.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0)
    return Request(f"delete the ingress qdisc of interface {index}", RTM_DELQDISC, 0, payload)


def redirect_ingress(index: int, target: int, preference: int) -> Request:
    """Redirect every packet that arrives at interface ``index`` to the egress of interface ``target``.

    u32 with a key that matches every packet, since some kernels have neither matchall nor flower.
    """
    selector = _SELECTOR.pack(_TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY.pack(0, 0, 0, 0)
    mirred = _MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, target)
    action = pack_text(_TCA_ACT_KIND, "mirred") + pack_nested(
        _TCA_ACT_OPTIONS, pack_attribute(_TCA_MIRRED_PARMS, mirred)
    )
    options = pack_attribute(_TCA_U32_ACT, pack_attribute(1, action)) + pack_attribute(_TCA_U32_SEL, selector)
    payload = _HEADER.pack(0, index, 0, _INGRESS_HANDLE, preference << 16 | htons(_ETH_P_ALL))
    payload += pack_text(_TCA_KIND, "u32") + pack_attribute(_TCA_OPTIONS, options)
    return Request(
        f"redirect interface {index} to interface {target}", RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, payload
    )


def dump_ingress_filters(index: int) -> Request:
    """Ask for the filters of interface ``index``; none where it has no such queueing discipline."""
    payload = _HEADER.pack(0, index, 0, _INGRESS_HANDLE, 0)
    return Request(f"list the ingress filters of interface {index}", RTM_GETTFILTER, NLM_F_DUMP, payload)


def filters_of(messages: list[Message]) -> list[Filter]:
    """The filters of a dump.

    :raise ProtocolError: the bytes break the format.
    """
    found = []
    for message in messages:
        if message.type != RTM_NEWTFILTER:
            continue
        if len(message.payload) < _HEADER.size:
            raise ProtocolError(f"a filter message of {len(message.payload)} bytes")
        info = _HEADER.unpack_from(message.payload)[4]
        kind = parse_attributes(message.payload[_HEADER.size :]).get(_TCA_KIND, b"")
        found.append(Filter(info >> 16, unpack_text(kind)))
    return found
