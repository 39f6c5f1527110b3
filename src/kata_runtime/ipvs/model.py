"""Virtual services, their servers, and what can be asked of them (ipvsadm(8), include/uapi/linux/ip_vs.h)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop

from kata_runtime.fast_enum import IntEnum
from kata_runtime.fast_functools import lru_cache
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Protocol(IntEnum):
    """IP protocol of a service; a firewall mark has none."""

    NONE = 0
    TCP = 6
    UDP = 17
    SCTP = 132


class Forwarding(IntEnum):
    """How packets reach a server: IP_VS_CONN_F_FWD_MASK of its flags."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3
    BYPASS = 4


class ForwardingNames(NamedTuple):
    """What a kind is called: in /proc/net/ip_vs and listings, and as an option where ipvsadm has one."""

    listed: str
    option: str = ""
    long_option: str = ""


# ip_vs_fwd_name(), net/netfilter/ipvs/ip_vs_ctl.c; ipvsadm(8).
FORWARDING_NAMES = {
    Forwarding.MASQUERADE: ForwardingNames("Masq", "-m", "masquerading"),
    Forwarding.LOCAL: ForwardingNames("Local"),
    Forwarding.TUNNEL: ForwardingNames("Tunnel", "-i", "ipip"),
    Forwarding.ROUTE: ForwardingNames("Route", "-g", "gatewaying"),
    Forwarding.BYPASS: ForwardingNames("Bypass"),
}
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos")


class TunnelType(IntEnum):
    """IP_VS_CONN_F_TUNNEL_TYPE_*."""

    IPIP = 0
    GUE = 1
    GRE = 2


class TunnelFlag(IntEnum):
    """Bits, IP_VS_TUNNEL_ENCAP_FLAG_*."""

    CHECKSUM = 1
    REMOTE_CHECKSUM = 2


class ServiceFlag(IntEnum):
    """Bits, IP_VS_SVC_F_*; what the last three mean depends on the scheduler."""

    PERSISTENT = 0x01
    HASHED = 0x02  # set by the kernel
    ONE_PACKET = 0x04
    SCHEDULER_1 = 0x08
    SCHEDULER_2 = 0x10
    SCHEDULER_3 = 0x20


# The first three flags by the names that ipvsadm gives them.
SCHEDULER_FLAGS: dict[str, tuple[str, str, str]] = {
    "sh": ("sh-fallback", "sh-port", "flag-3"),
    "mh": ("mh-fallback", "mh-port", "flag-3"),
}
PLAIN_FLAGS = ("flag-1", "flag-2", "flag-3")
FLAG_BITS = (ServiceFlag.SCHEDULER_1, ServiceFlag.SCHEDULER_2, ServiceFlag.SCHEDULER_3)

FULL_MASK = 0xFFFFFFFF
FULL_PREFIX = 128


class ServiceKey(NamedTuple):
    """Which service: address (4 or 16 bytes) and port, or a firewall ``mark``, then with protocol NONE."""

    family: int
    protocol: Protocol
    address: bytes
    port: int
    mark: int = 0

    @property
    def text(self) -> str:
        """As ipvsadm lists it: ``TCP  10.0.0.1:80``, ``FWM  17``."""
        if self.mark:
            return f"FWM  {self.mark} IPv6" if self.family == AF_INET6 else f"FWM  {self.mark}"
        return f"{self.protocol.name:<4} {address_text(self.family, self.address, self.port)}"

    @property
    def description(self) -> str:
        """In a sentence: ``service TCP 10.0.0.1:80``."""
        return f"service {' '.join(self.text.split())}"


class ServiceSpec(NamedTuple):
    """A service as asked for.

    ``timeout`` in seconds; ``netmask`` of IPv4 as a number (0xffffff00), of IPv6 as a prefix length; ``engine``
    is the persistence engine or empty.
    """

    key: ServiceKey
    scheduler: str
    flags: int
    timeout: int
    netmask: int
    engine: str = ""


class ServerKey(NamedTuple):
    """Which server of a service."""

    family: int
    address: bytes
    port: int

    @property
    def text(self) -> str:
        """``10.0.0.2:8080`` or ``[fd00::2]:80``."""
        return address_text(self.family, self.address, self.port)


class Tunnel(NamedTuple):
    """Encapsulation of a tunnelling server; the port counts for GUE only."""

    type: TunnelType = TunnelType.IPIP
    port: int = 0
    flags: int = 0


class ServerSpec(NamedTuple):
    """A server as asked for; ``upper`` and ``lower`` are thresholds of connections, 0 is none."""

    key: ServerKey
    forwarding: Forwarding
    weight: int
    upper: int = 0
    lower: int = 0
    tunnel: Tunnel = Tunnel()


class Statistics(NamedTuple):
    """Counters since the last zeroing, and rates a second (IPVS_STATS_ATTR_*)."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    connection_rate: int = 0
    in_packet_rate: int = 0
    out_packet_rate: int = 0
    in_byte_rate: int = 0
    out_byte_rate: int = 0


class Server(NamedTuple):
    """A server as the kernel has it, with its connections."""

    spec: ServerSpec
    active: int
    inactive: int
    persistent: int
    statistics: Statistics


class Service(NamedTuple):
    """A service as the kernel has it, with its servers."""

    spec: ServiceSpec
    statistics: Statistics
    servers: Sequence[Server] = ()


class Timeouts(NamedTuple):
    """Seconds; 0 in a request leaves one as it is."""

    tcp: int
    tcp_fin: int
    udp: int


class DaemonState(IntEnum):
    """IP_VS_STATE_*."""

    MASTER = 1
    BACKUP = 2


class Daemon(NamedTuple):
    """A connection synchronisation daemon; 0 and empty fields are the kernel's defaults."""

    state: DaemonState
    interface: str = ""
    sync_id: int = 0
    max_length: int = 0
    group: bytes = b""
    port: int = 0
    ttl: int = 0


class Connection(NamedTuple):
    """An entry of /proc/net/ip_vs_conn; ends are ``address:port`` as text, ``expires`` in seconds."""

    protocol: str
    expires: int
    state: str
    source: str
    virtual: str
    destination: str
    engine: str = ""
    engine_data: str = ""


# The same servers stand behind many services.
@lru_cache(maxsize=1 << 13)
def address_text(family: int, address: bytes, port: int) -> str:
    """``10.0.0.1:80`` or ``[fd00::1]:80``."""
    host = inet_ntop(family, address)
    return f"{host}:{port}" if family == AF_INET else f"[{host}]:{port}"


def flag_names(scheduler: str, flags: int) -> list[str]:
    """What ipvsadm calls the scheduler flags that are set."""
    names = SCHEDULER_FLAGS.get(scheduler, PLAIN_FLAGS)
    return [name for name, bit in zip(names, FLAG_BITS, strict=True) if flags & bit]


# What the grammar yields, one class for each command of ipvsadm.


class AddService(NamedTuple):
    """-A"""

    spec: ServiceSpec


class EditService(NamedTuple):
    """-E"""

    spec: ServiceSpec


class DeleteService(NamedTuple):
    """-D"""

    key: ServiceKey


class AddServer(NamedTuple):
    """-a"""

    service: ServiceKey
    spec: ServerSpec


class EditServer(NamedTuple):
    """-e"""

    service: ServiceKey
    spec: ServerSpec


class DeleteServer(NamedTuple):
    """-d"""

    service: ServiceKey
    key: ServerKey


class Clear(NamedTuple):
    """-C"""


class Zero(NamedTuple):
    """-Z; all services without a key."""

    key: ServiceKey | None


class SetTimeouts(NamedTuple):
    """--set"""

    timeouts: Timeouts


class StartDaemon(NamedTuple):
    """--start-daemon"""

    daemon: Daemon


class StopDaemon(NamedTuple):
    """--stop-daemon"""

    state: DaemonState


class View(IntEnum):
    """What -L shows of services and servers."""

    CONNECTIONS = 0
    STATISTICS = 1
    RATES = 2
    THRESHOLDS = 3
    PERSISTENCE = 4
    TUNNELS = 5


class ListTable(NamedTuple):
    """-L"""

    key: ServiceKey | None
    view: View
    exact: bool
    is_sorted: bool


class ListConnections(NamedTuple):
    """-L -c"""

    with_engine: bool


class ListTimeouts(NamedTuple):
    """-L --timeout"""


class ListDaemons(NamedTuple):
    """-L --daemon"""


class Save(NamedTuple):
    """-S"""


Change = (
    AddService | EditService | DeleteService | AddServer | EditServer | DeleteServer
    | Clear | Zero | SetTimeouts | StartDaemon | StopDaemon
)  # fmt: skip
Question = ListTable | ListConnections | ListTimeouts | ListDaemons | Save
Rule = AddService | EditService | DeleteService | AddServer | EditServer | DeleteServer
