"""IPVS over generic netlink: models to and from bytes (include/uapi/linux/ip_vs.h, family "IPVS")."""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs import attributes as ipvs
from kata_runtime.ipvs.kernel_names import interface_name
from kata_runtime.ipvs.model import (
    Daemon,
    DaemonState,
    Forwarding,
    Protocol,
    Server,
    ServerKey,
    ServerSpec,
    ServiceKey,
    ServiceSpec,
    Statistics,
    Timeouts,
    Tunnel,
)
from kata_runtime.ipvs.usual_layout import usual_server, usual_service
from kata_runtime.netlink.generic import pack_generic, unpack_generic
from kata_runtime.netlink.message import (
    iter_attributes,
    pack_attribute,
    pack_nested,
    pack_text,
    pack_u8,
    pack_u16,
    pack_u32,
    parse_attributes,
    unpack_u8,
    unpack_u16,
    unpack_u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILY_NAME = "IPVS"
_VERSION = 1

# IPVS_CMD_*
NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = 5, 6, 7, 8
NEW_DAEMON, DEL_DAEMON, GET_DAEMON = 9, 10, 11
SET_CONFIG, GET_CONFIG, GET_INFO, ZERO, FLUSH = 12, 13, 15, 16, 17

# IPVS_DAEMON_ATTR_*
_DAEMON_STATE, _DAEMON_IFN, _DAEMON_SYNC_ID, _DAEMON_MAXLEN = 1, 2, 3, 4
_DAEMON_GROUP, _DAEMON_GROUP6, _DAEMON_PORT, _DAEMON_TTL = 5, 6, 7, 8
# IPVS_INFO_ATTR_*
_INFO_VERSION, _INFO_SIZE = 1, 2

_COUNTER = struct.Struct("=Q")
# The attributes that every server has, packed by one call: a batch has 20,000 of them. Each field follows its nlattr.
_SERVER = struct.Struct("=HH16s HH2sxx HHI HHI HHI HHI HHHxx")


@lru_cache(maxsize=4096)
def pack_service_key(key: ServiceKey) -> bytes:
    """The attributes that identify a service."""
    family = pack_u16(ipvs.SVC_AF, key.family)
    if key.mark:
        return family + pack_u32(ipvs.SVC_FWMARK, key.mark)
    return b"".join(
        (
            family,
            pack_u16(ipvs.SVC_PROTOCOL, key.protocol),
            pack_attribute(ipvs.SVC_ADDR, key.address.ljust(16, b"\0")),
            pack_attribute(ipvs.SVC_PORT, ipvs.PORT.pack(key.port)),
        )
    )


def pack_service(spec: ServiceSpec) -> bytes:
    """All attributes of a service."""
    engine = pack_text(ipvs.SVC_PE_NAME, spec.engine) if spec.engine else b""
    mask = ipvs.MASK4.pack(spec.netmask) if spec.key.family == AF_INET else ipvs.NUMBER.pack(spec.netmask)
    return b"".join(
        (
            pack_service_key(spec.key),
            pack_text(ipvs.SVC_SCHED_NAME, spec.scheduler),
            engine,
            pack_attribute(ipvs.SVC_FLAGS, ipvs.FLAGS.pack(spec.flags, 0xFFFFFFFF)),
            pack_u32(ipvs.SVC_TIMEOUT, spec.timeout),
            pack_attribute(ipvs.SVC_NETMASK, mask),
        )
    )


def pack_server_key(key: ServerKey) -> bytes:
    """The attributes that identify a server of a service."""
    return b"".join(
        (
            pack_attribute(ipvs.DEST_ADDR, key.address.ljust(16, b"\0")),
            pack_attribute(ipvs.DEST_PORT, ipvs.PORT.pack(key.port)),
            pack_u16(ipvs.DEST_FAMILY, key.family),
        )
    )


# The same servers stand behind many services.
@lru_cache(maxsize=1 << 13)
def pack_server(spec: ServerSpec) -> bytes:
    """All attributes of a server."""
    # Unpacked at once, since looking each field up takes longer than packing them all.
    (family, address, port), forwarding, weight, upper, lower, tunnel = spec
    # fmt: off
    packed = _SERVER.pack(
        20, ipvs.DEST_ADDR, address,
        6, ipvs.DEST_PORT, port.to_bytes(2, "big"),
        8, ipvs.DEST_FWD_METHOD, forwarding,
        8, ipvs.DEST_WEIGHT, weight,
        8, ipvs.DEST_U_THRESH, upper,
        8, ipvs.DEST_L_THRESH, lower,
        6, ipvs.DEST_FAMILY, family,
    )
    # fmt: on
    if forwarding != Forwarding.TUNNEL:
        return packed
    return b"".join(
        (
            packed,
            pack_u8(ipvs.DEST_TUN_TYPE, tunnel.type),
            pack_attribute(ipvs.DEST_TUN_PORT, ipvs.PORT.pack(tunnel.port)),
            pack_u16(ipvs.DEST_TUN_FLAGS, tunnel.flags),
        )
    )


def pack_daemon(daemon: Daemon) -> bytes:
    """The attributes of a synchronisation daemon that were given."""
    parts = [pack_u32(_DAEMON_STATE, daemon.state), pack_text(_DAEMON_IFN, daemon.interface)]
    parts.append(pack_u32(_DAEMON_SYNC_ID, daemon.sync_id))
    if daemon.max_length:
        parts.append(pack_u16(_DAEMON_MAXLEN, daemon.max_length))
    if daemon.group:
        parts.append(pack_attribute(_DAEMON_GROUP if len(daemon.group) == 4 else _DAEMON_GROUP6, daemon.group))
    if daemon.port:
        parts.append(pack_u16(_DAEMON_PORT, daemon.port))
    if daemon.ttl:
        parts.append(pack_u8(_DAEMON_TTL, daemon.ttl))
    return b"".join(parts)


def pack_daemon_state(state: DaemonState) -> bytes:
    """The attribute that identifies a synchronisation daemon."""
    return pack_u32(_DAEMON_STATE, state)


def service_payload(command: int, service: bytes, server: bytes = b"") -> bytes:
    """A request about a service, and about a server of it."""
    attributes = pack_nested(ipvs.SERVICE, service) if service else b""
    return pack_generic(command, _VERSION, attributes + (pack_nested(ipvs.DEST, server) if server else b""))


def daemon_payload(command: int, daemon: bytes) -> bytes:
    """A request about a synchronisation daemon."""
    return pack_generic(command, _VERSION, pack_nested(ipvs.DAEMON, daemon))


def timeouts_payload(timeouts: Timeouts) -> bytes:
    """A request to set timeouts, in seconds; 0 leaves one as it is."""
    kinds = (ipvs.TIMEOUT_TCP, ipvs.TIMEOUT_TCP_FIN, ipvs.TIMEOUT_UDP)
    attributes = (pack_u32(kind, value) for kind, value in zip(kinds, timeouts, strict=True))
    return pack_generic(SET_CONFIG, _VERSION, b"".join(attributes))


def unpack_service(payload: bytes, *, statistics: bool = True) -> tuple[ServiceSpec, Statistics]:
    """The service in a message of a dump, without HASHED, which the kernel sets; ``statistics``: also its counters.

    :raise ProtocolError: the bytes break the format; the same holds for the other functions.
    """
    usual = usual_service(payload, statistics=statistics)
    if usual is not None:
        return usual
    attributes = _inner(payload, ipvs.SERVICE)
    family = unpack_u16(attributes.get(ipvs.SVC_AF, b""))
    size = ipvs.ADDRESS_BYTES.get(family)
    if size is None:
        raise ProtocolError(f"a virtual service of family {family}")
    mark = unpack_u32(attributes[ipvs.SVC_FWMARK]) if ipvs.SVC_FWMARK in attributes else 0
    if mark:
        key = ServiceKey(family, Protocol.NONE, b"", 0, mark)
    else:
        address = _address(attributes.get(ipvs.SVC_ADDR, b""), size)
        key = ServiceKey(family, _protocol(attributes), address, ipvs.port_of(attributes.get(ipvs.SVC_PORT, b"")))
    spec = ServiceSpec(key, *ipvs.settings_of(attributes, family))
    return spec, _statistics(attributes, ipvs.SVC_STATS64, ipvs.SVC_STATS) if statistics else ipvs.NOT_COUNTED


def unpack_server(payload: bytes, service_family: int, *, statistics: bool = True) -> Server:
    """The server in a message of a dump; kernels before 3.18 leave the server's family out."""
    usual = usual_server(payload, statistics=statistics)
    if usual is not None:
        return usual
    attributes = _inner(payload, ipvs.DEST)
    family = unpack_u16(attributes[ipvs.DEST_FAMILY]) if ipvs.DEST_FAMILY in attributes else service_family
    size = ipvs.ADDRESS_BYTES.get(family)
    if size is None:
        raise ProtocolError(f"a real server of family {family}")
    key = ServerKey(
        family, _address(attributes.get(ipvs.DEST_ADDR, b""), size), ipvs.port_of(attributes.get(ipvs.DEST_PORT, b""))
    )
    forwarding = ipvs.forwarding_of(unpack_u32(attributes.get(ipvs.DEST_FWD_METHOD, b"")))
    tunnel = Tunnel()
    if forwarding == Forwarding.TUNNEL and ipvs.DEST_TUN_TYPE in attributes:
        tunnel = ipvs.tunnel_of(
            unpack_u8(attributes[ipvs.DEST_TUN_TYPE]),
            attributes.get(ipvs.DEST_TUN_PORT, bytes(2)),
            unpack_u16(attributes.get(ipvs.DEST_TUN_FLAGS, bytes(2))),
        )

    def number(kind: int) -> int:
        return unpack_u32(attributes.get(kind, b""))

    weight, upper, lower = number(ipvs.DEST_WEIGHT), number(ipvs.DEST_U_THRESH), number(ipvs.DEST_L_THRESH)
    spec = ServerSpec(key, forwarding, weight, upper, lower, tunnel)
    active, inactive, persistent = number(ipvs.DEST_ACTIVE), number(ipvs.DEST_INACTIVE), number(ipvs.DEST_PERSISTENT)
    counted = _statistics(attributes, ipvs.DEST_STATS64, ipvs.DEST_STATS) if statistics else ipvs.NOT_COUNTED
    return Server(spec, active, inactive, persistent, counted)


def unpack_timeouts(payload: bytes) -> Timeouts:
    """The answer to GET_CONFIG."""
    attributes = parse_attributes(unpack_generic(payload).attributes)
    kinds = (ipvs.TIMEOUT_TCP, ipvs.TIMEOUT_TCP_FIN, ipvs.TIMEOUT_UDP)
    return Timeouts(*(unpack_u32(attributes.get(kind, b"")) for kind in kinds))


def unpack_info(payload: bytes) -> tuple[tuple[int, int, int], int]:
    """The answer to GET_INFO: version, and size of the table of connections."""
    attributes = parse_attributes(unpack_generic(payload).attributes)
    version = unpack_u32(attributes.get(_INFO_VERSION, b""))
    return (version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF), unpack_u32(attributes.get(_INFO_SIZE, b""))


def unpack_daemon(payload: bytes) -> Daemon:
    """The daemon in a message of a dump."""
    attributes = _inner(payload, ipvs.DAEMON)
    try:
        state = DaemonState(unpack_u32(attributes.get(_DAEMON_STATE, b"")))
    except ValueError as error:
        raise ProtocolError(f"a synchronisation daemon with {error}") from None
    return Daemon(
        state,
        interface_name(attributes.get(_DAEMON_IFN, b"")),
        unpack_u32(attributes.get(_DAEMON_SYNC_ID, b"")),
        unpack_u16(attributes.get(_DAEMON_MAXLEN, bytes(2))),
        _group(attributes),
        unpack_u16(attributes.get(_DAEMON_PORT, bytes(2))),
        unpack_u8(attributes.get(_DAEMON_TTL, bytes(1))),
    )


def _group(attributes: Mapping[int, bytes]) -> bytes:
    for kind, family in ((_DAEMON_GROUP, AF_INET), (_DAEMON_GROUP6, AF_INET6)):
        group = attributes.get(kind, b"")
        if group:
            if len(group) != ipvs.ADDRESS_BYTES[family]:
                raise ProtocolError(f"a multicast group of {len(group)} bytes")
            return group
    return b""


def _inner(payload: bytes, kind: int) -> dict[int, bytes]:
    return parse_attributes(parse_attributes(unpack_generic(payload).attributes).get(kind, b""))


def _address(payload: bytes, size: int) -> bytes:
    if len(payload) != 16:
        raise ProtocolError(f"an address of {len(payload)} bytes")
    return payload[:size]


def _protocol(attributes: Mapping[int, bytes]) -> Protocol:
    number = unpack_u16(attributes.get(ipvs.SVC_PROTOCOL, b""))
    found = ipvs.PROTOCOLS.get(number)
    if found is None:
        raise ProtocolError(f"a virtual service of protocol {number}")
    return found


def _statistics(attributes: Mapping[int, bytes], wide: int, narrow: int) -> Statistics:
    """The 64-bit counters, or the 32-bit ones of kernels before 4.1."""
    values = [0] * len(Statistics._fields)
    for kind, payload in iter_attributes(attributes.get(wide, attributes.get(narrow, b""))):
        if 1 <= kind <= len(values):
            layout = _COUNTER if len(payload) == _COUNTER.size else ipvs.NUMBER
            if len(payload) != layout.size:
                raise ProtocolError(f"a counter of {len(payload)} bytes")
            values[kind - 1] = layout.unpack(payload)[0]
    return Statistics(*values)
