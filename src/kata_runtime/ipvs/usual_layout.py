"""Services and servers of a dump in the layout that Linux 5.3 and later give them, decoded at once.

Each attribute is its length, its type and its value. What has another layout is left to ``codec``, which reads
attribute by attribute.
Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_fill_service and ip_vs_genl_fill_dest.
"""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs import attributes as ipvs
from kata_runtime.ipvs.model import (
    Forwarding,
    Server,
    ServerKey,
    ServerSpec,
    ServiceKey,
    ServiceSpec,
    Statistics,
    Tunnel,
)
from kata_runtime.netlink.message import parse_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.ipvs.attributes import Settings

_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_NO_TUNNEL = Tunnel()
_START = 8  # struct genlmsghdr, and the header of the attribute around all others

# Both end with counters of 32 bits, which are passed over, and counters of 64 bits.
_NARROW_BYTES = 92
_COUNTERS = struct.Struct("=" + "HHQ" * len(Statistics._fields))
_COUNTER_LENGTHS = (12,) * len(Statistics._fields)
_COUNTER_TYPES = tuple(range(1, len(Statistics._fields) + 1))
_WIDE_BYTES = _ATTRIBUTE.size + _COUNTERS.size
_COUNTED_BYTES = _NARROW_BYTES + _WIDE_BYTES

# What tells a service from others, without a firewall mark; its settings follow, whose names differ in length.
_SERVICE_KEY = struct.Struct("=HH HHHxx HHHxx HH16s HH2sxx")
_SERVICE_KEY_END = 4 + _SERVICE_KEY.size
_SERVICE_LENGTHS = (6, 6, 20, 6)
_SERVICE_TYPES = (ipvs.SVC_AF, ipvs.SVC_PROTOCOL, ipvs.SVC_ADDR, ipvs.SVC_PORT)
_SETTINGS = frozenset({ipvs.SVC_SCHED_NAME, ipvs.SVC_FLAGS, ipvs.SVC_TIMEOUT, ipvs.SVC_NETMASK, ipvs.SVC_PE_NAME})
_SERVICE_NARROW_HEAD = _ATTRIBUTE.pack(_NARROW_BYTES, ipvs.SVC_STATS)
_SERVICE_WIDE_HEAD = _ATTRIBUTE.pack(_WIDE_BYTES, ipvs.SVC_STATS64)

_SERVER = struct.Struct("=HH16s HH2sxx HHI HHI HHBxxx HH2sxx HHHxx HHI HHI HHI HHI HHI HHHxx")
_SERVER_LENGTHS = (20, 6, 8, 8, 5, 6, 6, 8, 8, 8, 8, 8, 6)
_SERVER_TYPES = (
    *(ipvs.DEST_ADDR, ipvs.DEST_PORT, ipvs.DEST_FWD_METHOD, ipvs.DEST_WEIGHT),
    *(ipvs.DEST_TUN_TYPE, ipvs.DEST_TUN_PORT, ipvs.DEST_TUN_FLAGS, ipvs.DEST_U_THRESH, ipvs.DEST_L_THRESH),
    *(ipvs.DEST_ACTIVE, ipvs.DEST_INACTIVE, ipvs.DEST_PERSISTENT, ipvs.DEST_FAMILY),
)
_SERVER_BYTES = _START + _SERVER.size + _COUNTED_BYTES
_SERVER_HEAD = _ATTRIBUTE.pack(_SERVER_BYTES - 4, ipvs.DEST)
_SERVER_WIDE_HEAD = _ATTRIBUTE.pack(_WIDE_BYTES, ipvs.DEST_STATS64)


def usual_service(payload: bytes, *, statistics: bool) -> tuple[ServiceSpec, Statistics] | None:
    """``codec.unpack_service``, or None for another layout, and for services with a firewall mark."""
    counted_at = len(payload) - _COUNTED_BYTES
    if counted_at < _SERVICE_KEY_END or not payload.startswith(_SERVICE_NARROW_HEAD, counted_at):
        return None
    length, kind, *fields = _SERVICE_KEY.unpack_from(payload, 4)
    if length != len(payload) - 4 or kind != ipvs.SERVICE:
        return None
    if tuple(fields[::3]) != _SERVICE_LENGTHS or tuple(fields[1::3]) != _SERVICE_TYPES:
        return None
    family, number, address, port = fields[2::3]
    size, protocol = ipvs.ADDRESS_BYTES.get(family), ipvs.PROTOCOLS.get(number)
    if size is None or protocol is None:
        return None
    settings = _settings(payload[_SERVICE_KEY_END:counted_at], family)
    counted = _counted(payload, _SERVICE_WIDE_HEAD) if statistics else ipvs.NOT_COUNTED
    if settings is None or counted is None:
        return None
    return ServiceSpec(ServiceKey(family, protocol, address[:size], port[0] << 8 | port[1]), *settings), counted


# Thousands of services share a few.
@lru_cache(maxsize=1 << 10)
def _settings(packed: bytes, family: int) -> Settings | None:
    try:
        attributes = parse_attributes(packed)
        return ipvs.settings_of(attributes, family) if _SETTINGS.issuperset(attributes) else None
    except ProtocolError:
        # Another layout or broken bytes: ``codec`` finds out which.
        return None


def usual_server(payload: bytes, *, statistics: bool) -> Server | None:
    """``codec.unpack_server``, or None for another layout."""
    if len(payload) != _SERVER_BYTES or not payload.startswith(_SERVER_HEAD, 4):
        return None
    fields = _SERVER.unpack_from(payload, _START)
    if fields[::3] != _SERVER_LENGTHS or fields[1::3] != _SERVER_TYPES:
        return None
    (address, port, method, weight, kind, tunnel_port, flags, upper, lower, active, inactive, persistent, family) = (
        fields[2::3]
    )
    size = ipvs.ADDRESS_BYTES.get(family)
    counted = _counted(payload, _SERVER_WIDE_HEAD) if statistics else ipvs.NOT_COUNTED
    if size is None or counted is None:
        return None
    forwarding = ipvs.forwarding_of(method)
    tunnel = ipvs.tunnel_of(kind, tunnel_port, flags) if forwarding == Forwarding.TUNNEL else _NO_TUNNEL
    key = ServerKey(family, address[:size], port[0] << 8 | port[1])
    return Server(ServerSpec(key, forwarding, weight, upper, lower, tunnel), active, inactive, persistent, counted)


def _counted(payload: bytes, head: bytes) -> Statistics | None:
    """The counters of 64 bits at the end."""
    if not payload.startswith(head, len(payload) - _WIDE_BYTES):
        return None
    counters = _COUNTERS.unpack_from(payload, len(payload) - _COUNTERS.size)
    if counters[::3] != _COUNTER_LENGTHS or counters[1::3] != _COUNTER_TYPES:
        return None
    return Statistics(*counters[2::3])
