"""The attributes of IPVS's generic netlink family: their numbers, and the values of single ones.

Source: include/uapi/linux/ip_vs.h.
"""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs.kernel_names import module_name
from kata_runtime.ipvs.model import Forwarding, Protocol, ServiceFlag, Statistics, Tunnel, TunnelType
from kata_runtime.netlink.message import unpack_u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    # What ServiceSpec has besides its key: scheduler, flags, timeout, netmask, persistence engine.
    Settings = tuple[str, int, int, int, str]

# IPVS_CMD_ATTR_*
SERVICE, DEST, DAEMON, TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP = 1, 2, 3, 4, 5, 6
# IPVS_SVC_ATTR_*
SVC_AF, SVC_PROTOCOL, SVC_ADDR, SVC_PORT, SVC_FWMARK, SVC_SCHED_NAME = 1, 2, 3, 4, 5, 6
SVC_FLAGS, SVC_TIMEOUT, SVC_NETMASK, SVC_STATS, SVC_PE_NAME, SVC_STATS64 = 7, 8, 9, 10, 11, 12
# IPVS_DEST_ATTR_*
DEST_ADDR, DEST_PORT, DEST_FWD_METHOD, DEST_WEIGHT, DEST_U_THRESH, DEST_L_THRESH = 1, 2, 3, 4, 5, 6
DEST_ACTIVE, DEST_INACTIVE, DEST_PERSISTENT, DEST_STATS, DEST_FAMILY, DEST_STATS64 = 7, 8, 9, 10, 11, 12
DEST_TUN_TYPE, DEST_TUN_PORT, DEST_TUN_FLAGS = 13, 14, 15

ADDRESS_BYTES = {AF_INET: 4, AF_INET6: 16}
MASK4 = struct.Struct(">I")
NUMBER = struct.Struct("=I")
NOT_COUNTED = Statistics()
# A service without a firewall mark has one.
PROTOCOLS = {int(protocol): protocol for protocol in Protocol if protocol != Protocol.NONE}
_FORWARDINGS = tuple(Forwarding)
_FORWARDING_MASK = 0x7  # IP_VS_CONN_F_FWD_MASK
PORT = struct.Struct(">H")
FLAGS = struct.Struct("=II")  # struct ip_vs_flags: flags, mask


def port_of(payload: bytes) -> int:
    """A port.

    :raise ProtocolError: the bytes break the format; the same holds for the other functions.
    """
    if len(payload) != PORT.size:
        raise ProtocolError(f"a port of {len(payload)} bytes")
    value: int = PORT.unpack(payload)[0]
    return value


def forwarding_of(flags: int) -> Forwarding:
    """How packets reach a server with these flags."""
    try:
        return _FORWARDINGS[flags & _FORWARDING_MASK]
    except IndexError:
        raise ProtocolError(f"a real server with flags {flags:#x}") from None


def tunnel_of(kind: int, port: bytes, flags: int) -> Tunnel:
    """The encapsulation of a tunnelling server."""
    try:
        return Tunnel(TunnelType(kind), port_of(port), flags)
    except ValueError as error:
        raise ProtocolError(f"a real server with {error}") from None


def settings_of(attributes: Mapping[int, bytes], family: int) -> Settings:
    """What a service of ``family`` has besides its key, without HASHED, which the kernel sets."""
    mask = attributes.get(SVC_NETMASK, bytes(4))
    flags = attributes.get(SVC_FLAGS, b"")
    if len(flags) != FLAGS.size or len(mask) != 4:
        raise ProtocolError("a virtual service without flags or netmask")
    return (
        module_name(attributes.get(SVC_SCHED_NAME, b"")),
        FLAGS.unpack(flags)[0] & ~ServiceFlag.HASHED,
        unpack_u32(attributes.get(SVC_TIMEOUT, b"")),
        (MASK4 if family == AF_INET else NUMBER).unpack(mask)[0],
        module_name(attributes[SVC_PE_NAME]) if SVC_PE_NAME in attributes else "",
    )
