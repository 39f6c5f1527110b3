"""What ``ipvsadm -n`` 1.31 prints, byte for byte."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop

from kata_runtime.ipvs.model import (
    FORWARDING_NAMES,
    FULL_MASK,
    FULL_PREFIX,
    Forwarding,
    ServiceFlag,
    Statistics,
    TunnelFlag,
    TunnelType,
    View,
    address_text,
    flag_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_runtime.ipvs.model import (
        Connection,
        Daemon,
        Server,
        ServiceSpec,
        Timeouts,
        Tunnel,
    )

_HEADERS = {
    View.CONNECTIONS: (
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
    ),
    View.STATISTICS: (
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
    ),
    View.RATES: (
        "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n"
    ),
    View.THRESHOLDS: (
        "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
    ),
    View.PERSISTENCE: (
        "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
    ),
    View.TUNNELS: (
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
    ),
}
_FORWARDING = {kind: names.listed for kind, names in FORWARDING_NAMES.items()}
_PLAIN = 100_000_000  # below it a number is printed as it is, exact or not
_UNITS = ((100_000_000, 1, ""), (10**11, 10**3, "K"), (10**14, 10**6, "M"), (10**17, 10**9, "G"))


def title(version: tuple[int, int, int], size: int) -> str:
    """The first line of a whole table."""
    return f"IP Virtual Server version {version[0]}.{version[1]}.{version[2]} (size={size})\n"


def heading(view: View) -> str:
    """The lines above the services."""
    return _HEADERS[view]


def service(spec: ServiceSpec, statistics: Statistics, view: View, *, exact: bool) -> str:
    """The line of a service, which those of its servers follow."""
    if view in (View.STATISTICS, View.RATES):
        return f"{spec.key.text:<33}{_numbers(statistics, view, exact=exact)}\n"
    return f"{spec.key.text} {spec.scheduler}{describe_flags(spec)}\n"


def server(shown: Server, view: View, *, exact: bool) -> str:
    """The line of a server."""
    spec = shown.spec
    head = f"  -> {address_text(*spec.key):<28}"
    if view in (View.STATISTICS, View.RATES):
        return f"{head}{_numbers(shown.statistics, view, exact=exact)}\n"
    connections_text = f"{shown.active:<10} {shown.inactive:<10}\n"
    match view:
        case View.THRESHOLDS:
            return f"{head} {spec.upper:<10} {spec.lower:<10} {connections_text}"
        case View.PERSISTENCE:
            return f"{head} {spec.weight:<9} {shown.persistent:<11} {connections_text}"
        case View.TUNNELS:
            tunnel = _tunnel_text(spec.tunnel) if spec.forwarding == Forwarding.TUNNEL else "n/a"
            return f"{head} {_FORWARDING[spec.forwarding]:<7} {tunnel:<13} {spec.weight:<6} {connections_text}"
        case _:
            return f"{head} {_FORWARDING[spec.forwarding]:<7} {spec.weight:<6} {connections_text}"


def timeouts(values: Timeouts) -> str:
    """-L --timeout"""
    return f"Timeout (tcp tcpfin udp): {values.tcp} {values.tcp_fin} {values.udp}\n"


def daemons(running: Iterable[Daemon]) -> str:
    """-L --daemon"""
    return "".join(_daemon_line(daemon) for daemon in running)


def connections(entries: Iterable[Connection], *, with_engine: bool) -> Iterator[str]:
    """-L -c"""
    engine = "        pe name          pe_data" if with_engine else ""
    yield "IPVS connection entries\n"
    yield f"pro expire state       source             virtual            destination{engine}\n"
    for entry in entries:
        expire = f"{entry.expires // 60:02d}:{entry.expires % 60:02d}"
        line = f"{entry.protocol:<3} {expire:<6} {entry.state:<11} "
        line += f"{entry.source:<18} {entry.virtual:<18} {entry.destination}"
        if with_engine and entry.engine:
            line = f"{line:<{len(line)}} {entry.engine:<16} {entry.engine_data}"
        yield f"{line}\n"


def describe_flags(spec: ServiceSpec) -> str:
    """What follows a service's scheduler."""
    text = ""
    names = flag_names(spec.scheduler, spec.flags)
    if names:
        text += f" ({','.join(names)})"
    if spec.flags & ServiceFlag.PERSISTENT:
        text += f" persistent {spec.timeout}"
        mask = netmask_text(spec)
        if mask:
            text += f" mask {mask}"
        # As ipvsadm 1.31, which does not show the engine of a service without persistence.
        if spec.engine:
            text += f" pe {spec.engine}"
    if spec.flags & ServiceFlag.ONE_PACKET:
        text += " ops"
    return text


def netmask_text(spec: ServiceSpec) -> str:
    """The persistence mask, empty when it is the whole address."""
    if spec.key.family == AF_INET6:
        return "" if spec.netmask == FULL_PREFIX else str(spec.netmask)
    if spec.netmask == FULL_MASK:
        return ""
    return inet_ntop(AF_INET, spec.netmask.to_bytes(4, "big"))


def _tunnel_text(tunnel: Tunnel) -> str:
    if tunnel.type == TunnelType.IPIP:
        return "ipip"
    checksum = {0: "-c", TunnelFlag.CHECKSUM: "+c", TunnelFlag.REMOTE_CHECKSUM: "r+c"}.get(tunnel.flags, "")
    name = tunnel.type.name.lower()
    return f"{name}:{tunnel.port}:{checksum}" if tunnel.type == TunnelType.GUE else f"{name}:{checksum}"


def _numbers(statistics: Statistics, view: View, *, exact: bool) -> str:
    values = statistics[:5] if view == View.STATISTICS else statistics[5:]
    if max(values) < _PLAIN:
        first, second, third, fourth, fifth = values
        return f"{first:>9}{second:>9}{third:>9}{fourth:>9}{fifth:>9}"
    return "".join(_number(value, exact=exact) for value in values)


def _number(value: int, *, exact: bool) -> str:
    if exact:
        text = str(value)
        return f"{text:>9}" if len(text) <= 8 else f" {text}"
    for limit, divisor, unit in _UNITS:
        if value < limit:
            return f"{value // divisor:>{9 - len(unit)}}{unit}"
    return f"{value // 10**12:>8}T"


def _daemon_line(daemon: Daemon) -> str:
    group = inet_ntop(AF_INET if len(daemon.group) == 4 else AF_INET6, daemon.group) if daemon.group else ""
    return (
        f"{daemon.state.name.lower()} sync daemon (mcast={daemon.interface}, syncid={daemon.sync_id}, "
        f"maxlen={daemon.max_length}, group={group}, port={daemon.port}, ttl={daemon.ttl})\n"
    )
