"""IPVS over generic netlink: models to and from bytes (include/uapi/linux/ip_vs.h, family "IPVS")."""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.errors import ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.kernel_names import interface_name, module_name
from kata_runtime.ipvs.model import (
    Daemon,
    DaemonState,
    Forwarding,
    Protocol,
    Server,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    Statistics,
    Timeouts,
    Tunnel,
    TunnelType,
)
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

# IPVS_CMD_ATTR_*
_SERVICE, _DEST, _DAEMON, _TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = 1, 2, 3, 4, 5, 6
# IPVS_SVC_ATTR_*
_SVC_AF, _SVC_PROTOCOL, _SVC_ADDR, _SVC_PORT, _SVC_FWMARK, _SVC_SCHED_NAME = 1, 2, 3, 4, 5, 6
_SVC_FLAGS, _SVC_TIMEOUT, _SVC_NETMASK, _SVC_STATS, _SVC_PE_NAME, _SVC_STATS64 = 7, 8, 9, 10, 11, 12
# IPVS_DEST_ATTR_*
_DEST_ADDR, _DEST_PORT, _DEST_FWD_METHOD, _DEST_WEIGHT, _DEST_U_THRESH, _DEST_L_THRESH = 1, 2, 3, 4, 5, 6
_DEST_ACTIVE, _DEST_INACTIVE, _DEST_PERSISTENT, _DEST_STATS, _DEST_FAMILY, _DEST_STATS64 = 7, 8, 9, 10, 11, 12
_DEST_TUN_TYPE, _DEST_TUN_PORT, _DEST_TUN_FLAGS = 13, 14, 15
# IPVS_DAEMON_ATTR_*
_DAEMON_STATE, _DAEMON_IFN, _DAEMON_SYNC_ID, _DAEMON_MAXLEN = 1, 2, 3, 4
_DAEMON_GROUP, _DAEMON_GROUP6, _DAEMON_PORT, _DAEMON_TTL = 5, 6, 7, 8
# IPVS_INFO_ATTR_*
_INFO_VERSION, _INFO_SIZE = 1, 2

_FORWARDING_MASK = 0x7  # IP_VS_CONN_F_FWD_MASK
_ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}
_PORT = struct.Struct(">H")
_FLAGS = struct.Struct("=II")  # struct ip_vs_flags: flags, mask
_MASK4 = struct.Struct(">I")
_NUMBER = struct.Struct("=I")
_COUNTER = struct.Struct("=Q")
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
# The attributes that every server has, packed by one call: a batch has 20,000 of them. Each field follows its nlattr.
_SERVER = struct.Struct("=HH16s HH2sxx HHI HHI HHI HHI HHHxx")
NOT_COUNTED = Statistics()
_NO_TUNNEL = Tunnel()
_FORWARDINGS = tuple(Forwarding)
# A service without a firewall mark has one.
_PROTOCOLS = {int(protocol): protocol for protocol in Protocol if protocol != Protocol.NONE}

# The layout of a server in a dump (ip_vs_genl_fill_dest): thirteen attributes, counters of 32 bits, which are passed
# over, and counters of 64 bits. Each attribute is its length, its type and its value.
_USUAL = struct.Struct("=HH16s HH2sxx HHI HHI HHBxxx HH2sxx HHHxx HHI HHI HHI HHI HHI HHHxx")
_USUAL_LENGTHS = (20, 6, 8, 8, 5, 6, 6, 8, 8, 8, 8, 8, 6)
_USUAL_TYPES = (
    _DEST_ADDR, _DEST_PORT, _DEST_FWD_METHOD, _DEST_WEIGHT, _DEST_TUN_TYPE, _DEST_TUN_PORT, _DEST_TUN_FLAGS,
    _DEST_U_THRESH, _DEST_L_THRESH, _DEST_ACTIVE, _DEST_INACTIVE, _DEST_PERSISTENT, _DEST_FAMILY,
)  # fmt: skip
_USUAL_COUNTERS = struct.Struct("=" + "HHQ" * len(Statistics._fields))
_COUNTER_LENGTHS = (12,) * len(Statistics._fields)
_COUNTER_TYPES = tuple(range(1, len(Statistics._fields) + 1))
_COUNTERS_HEAD = _ATTRIBUTE.pack(_ATTRIBUTE.size + _USUAL_COUNTERS.size, _DEST_STATS64)
_USUAL_START = 8  # struct genlmsghdr, and the header of the attribute around the server's
_USUAL_BYTES = _USUAL_START + _USUAL.size + 92 + len(_COUNTERS_HEAD) + _USUAL_COUNTERS.size
_USUAL_HEAD = _ATTRIBUTE.pack(_USUAL_BYTES - 4, _DEST)


@lru_cache(maxsize=4096)
def pack_service_key(key: ServiceKey) -> bytes:
    """The attributes that identify a service."""
    family = pack_u16(_SVC_AF, key.family)
    if key.mark:
        return family + pack_u32(_SVC_FWMARK, key.mark)
    return b"".join(
        (
            family,
            pack_u16(_SVC_PROTOCOL, key.protocol),
            pack_attribute(_SVC_ADDR, key.address.ljust(16, b"\0")),
            pack_attribute(_SVC_PORT, _PORT.pack(key.port)),
        )
    )


def pack_service(spec: ServiceSpec) -> bytes:
    """All attributes of a service."""
    engine = pack_text(_SVC_PE_NAME, spec.engine) if spec.engine else b""
    mask = _MASK4.pack(spec.netmask) if spec.key.family == AF_INET else _NUMBER.pack(spec.netmask)
    return b"".join(
        (
            pack_service_key(spec.key),
            pack_text(_SVC_SCHED_NAME, spec.scheduler),
            engine,
            pack_attribute(_SVC_FLAGS, _FLAGS.pack(spec.flags, 0xFFFFFFFF)),
            pack_u32(_SVC_TIMEOUT, spec.timeout),
            pack_attribute(_SVC_NETMASK, mask),
        )
    )


def pack_server_key(key: ServerKey) -> bytes:
    """The attributes that identify a server of a service."""
    return b"".join(
        (
            pack_attribute(_DEST_ADDR, key.address.ljust(16, b"\0")),
            pack_attribute(_DEST_PORT, _PORT.pack(key.port)),
            pack_u16(_DEST_FAMILY, key.family),
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
        20, _DEST_ADDR, address,
        6, _DEST_PORT, port.to_bytes(2, "big"),
        8, _DEST_FWD_METHOD, forwarding,
        8, _DEST_WEIGHT, weight,
        8, _DEST_U_THRESH, upper,
        8, _DEST_L_THRESH, lower,
        6, _DEST_FAMILY, family,
    )
    # fmt: on
    if forwarding != Forwarding.TUNNEL:
        return packed
    return b"".join(
        (
            packed,
            pack_u8(_DEST_TUN_TYPE, tunnel.type),
            pack_attribute(_DEST_TUN_PORT, _PORT.pack(tunnel.port)),
            pack_u16(_DEST_TUN_FLAGS, tunnel.flags),
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
    attributes = pack_nested(_SERVICE, service) if service else b""
    return pack_generic(command, _VERSION, attributes + (pack_nested(_DEST, server) if server else b""))


def daemon_payload(command: int, daemon: bytes) -> bytes:
    """A request about a synchronisation daemon."""
    return pack_generic(command, _VERSION, pack_nested(_DAEMON, daemon))


def timeouts_payload(timeouts: Timeouts) -> bytes:
    """A request to set timeouts, in seconds; 0 leaves one as it is."""
    kinds = (_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP)
    attributes = (pack_u32(kind, value) for kind, value in zip(kinds, timeouts, strict=True))
    return pack_generic(SET_CONFIG, _VERSION, b"".join(attributes))


def unpack_service(payload: bytes, *, statistics: bool = True) -> tuple[ServiceSpec, Statistics]:
    """The service in a message of a dump, without HASHED, which the kernel sets; ``statistics``: also its counters.

    :raise ProtocolError: the bytes break the format; the same holds for the other functions.
    """
    attributes = _inner(payload, _SERVICE)
    family = unpack_u16(attributes.get(_SVC_AF, b""))
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        raise ProtocolError(f"a virtual service of family {family}")
    mark = unpack_u32(attributes[_SVC_FWMARK]) if _SVC_FWMARK in attributes else 0
    if mark:
        key = ServiceKey(family, Protocol.NONE, b"", 0, mark)
    else:
        address = _address(attributes.get(_SVC_ADDR, b""), size)
        key = ServiceKey(family, _protocol(attributes), address, _port(attributes.get(_SVC_PORT, b"")))
    mask = attributes.get(_SVC_NETMASK, bytes(4))
    flags = attributes.get(_SVC_FLAGS, b"")
    if len(flags) != _FLAGS.size or len(mask) != 4:
        raise ProtocolError("a virtual service without flags or netmask")
    spec = ServiceSpec(
        key,
        module_name(attributes.get(_SVC_SCHED_NAME, b"")),
        _FLAGS.unpack(flags)[0] & ~ServiceFlag.HASHED,
        unpack_u32(attributes.get(_SVC_TIMEOUT, b"")),
        (_MASK4 if family == AF_INET else _NUMBER).unpack(mask)[0],
        module_name(attributes[_SVC_PE_NAME]) if _SVC_PE_NAME in attributes else "",
    )
    return spec, _statistics(attributes, _SVC_STATS64, _SVC_STATS) if statistics else NOT_COUNTED


def unpack_server(payload: bytes, service_family: int, *, statistics: bool = True) -> Server:
    """The server in a message of a dump; kernels before 3.18 leave the server's family out."""
    usual = _usual_server(payload, statistics=statistics)
    if usual is not None:
        return usual
    attributes = _inner(payload, _DEST)
    family = unpack_u16(attributes[_DEST_FAMILY]) if _DEST_FAMILY in attributes else service_family
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        raise ProtocolError(f"a real server of family {family}")
    key = ServerKey(family, _address(attributes.get(_DEST_ADDR, b""), size), _port(attributes.get(_DEST_PORT, b"")))
    forwarding = forwarding_of(unpack_u32(attributes.get(_DEST_FWD_METHOD, b"")))
    tunnel = Tunnel()
    if forwarding == Forwarding.TUNNEL and _DEST_TUN_TYPE in attributes:
        tunnel = _tunnel(
            unpack_u8(attributes[_DEST_TUN_TYPE]),
            attributes.get(_DEST_TUN_PORT, bytes(2)),
            unpack_u16(attributes.get(_DEST_TUN_FLAGS, bytes(2))),
        )

    def number(kind: int) -> int:
        return unpack_u32(attributes.get(kind, b""))

    weight, upper, lower = number(_DEST_WEIGHT), number(_DEST_U_THRESH), number(_DEST_L_THRESH)
    spec = ServerSpec(key, forwarding, weight, upper, lower, tunnel)
    active, inactive, persistent = number(_DEST_ACTIVE), number(_DEST_INACTIVE), number(_DEST_PERSISTENT)
    counted = _statistics(attributes, _DEST_STATS64, _DEST_STATS) if statistics else NOT_COUNTED
    return Server(spec, active, inactive, persistent, counted)


def _usual_server(payload: bytes, *, statistics: bool) -> Server | None:
    """``unpack_server`` for the layout that Linux 5.3 and later give every server, in a fifth of the time."""
    if len(payload) != _USUAL_BYTES or not payload.startswith(_USUAL_HEAD, _USUAL_START - len(_USUAL_HEAD)):
        return None
    fields = _USUAL.unpack_from(payload, _USUAL_START)
    if fields[::3] != _USUAL_LENGTHS or fields[1::3] != _USUAL_TYPES:
        return None
    (address, port, method, weight, kind, tunnel_port, flags, upper, lower, active, inactive, persistent, family) = (
        fields[2::3]
    )
    size = _ADDRESS_BYTES.get(family)
    if size is None:
        return None
    forwarding = forwarding_of(method)
    tunnel = _tunnel(kind, tunnel_port, flags) if forwarding == Forwarding.TUNNEL else _NO_TUNNEL
    key = ServerKey(family, address[:size], port[0] << 8 | port[1])
    counted = NOT_COUNTED
    if statistics:
        if not payload.startswith(_COUNTERS_HEAD, _USUAL_BYTES - _USUAL_COUNTERS.size - len(_COUNTERS_HEAD)):
            return None
        counters = _USUAL_COUNTERS.unpack_from(payload, _USUAL_BYTES - _USUAL_COUNTERS.size)
        if counters[::3] != _COUNTER_LENGTHS or counters[1::3] != _COUNTER_TYPES:
            return None
        counted = Statistics(*counters[2::3])
    spec = ServerSpec(key, forwarding, weight, upper, lower, tunnel)
    return Server(spec, active, inactive, persistent, counted)


def unpack_timeouts(payload: bytes) -> Timeouts:
    """The answer to GET_CONFIG."""
    attributes = parse_attributes(unpack_generic(payload).attributes)
    kinds = (_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP)
    return Timeouts(*(unpack_u32(attributes.get(kind, b"")) for kind in kinds))


def unpack_info(payload: bytes) -> tuple[tuple[int, int, int], int]:
    """The answer to GET_INFO: version, and size of the table of connections."""
    attributes = parse_attributes(unpack_generic(payload).attributes)
    version = unpack_u32(attributes.get(_INFO_VERSION, b""))
    return (version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF), unpack_u32(attributes.get(_INFO_SIZE, b""))


def unpack_daemon(payload: bytes) -> Daemon:
    """The daemon in a message of a dump."""
    attributes = _inner(payload, _DAEMON)
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
            if len(group) != _ADDRESS_BYTES[family]:
                raise ProtocolError(f"a multicast group of {len(group)} bytes")
            return group
    return b""


def _inner(payload: bytes, kind: int) -> dict[int, bytes]:
    return parse_attributes(parse_attributes(unpack_generic(payload).attributes).get(kind, b""))


def _address(payload: bytes, size: int) -> bytes:
    if len(payload) != 16:
        raise ProtocolError(f"an address of {len(payload)} bytes")
    return payload[:size]


def _port(payload: bytes) -> int:
    if len(payload) != _PORT.size:
        raise ProtocolError(f"a port of {len(payload)} bytes")
    value: int = _PORT.unpack(payload)[0]
    return value


def _protocol(attributes: Mapping[int, bytes]) -> Protocol:
    number = unpack_u16(attributes.get(_SVC_PROTOCOL, b""))
    found = _PROTOCOLS.get(number)
    if found is None:
        raise ProtocolError(f"a virtual service of protocol {number}")
    return found


def forwarding_of(flags: int) -> Forwarding:
    try:
        return _FORWARDINGS[flags & _FORWARDING_MASK]
    except IndexError:
        raise ProtocolError(f"a real server with flags {flags:#x}") from None


def _tunnel(kind: int, port: bytes, flags: int) -> Tunnel:
    try:
        return Tunnel(TunnelType(kind), _port(port), flags)
    except ValueError as error:
        raise ProtocolError(f"a real server with {error}") from None


def _statistics(attributes: Mapping[int, bytes], wide: int, narrow: int) -> Statistics:
    """The 64-bit counters, or the 32-bit ones of kernels before 4.1."""
    values = [0] * len(Statistics._fields)
    for kind, payload in iter_attributes(attributes.get(wide, attributes.get(narrow, b""))):
        if 1 <= kind <= len(values):
            layout = _COUNTER if len(payload) == _COUNTER.size else _NUMBER
            if len(payload) != layout.size:
                raise ProtocolError(f"a counter of {len(payload)} bytes")
            values[kind - 1] = layout.unpack(payload)[0]
    return Statistics(*values)
