"""ipvsadm's command lines, read into what they ask for (ipvsadm(8), version 1.31)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress
from kata_runtime.errors import InputError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.ipvsadm_options import Command, Line, read_line
from kata_runtime.ipvs.model import (
    FLAG_BITS,
    FORWARDING_NAMES,
    FULL_MASK,
    FULL_PREFIX,
    PLAIN_FLAGS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    AddServer,
    AddService,
    Clear,
    Daemon,
    DaemonState,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Forwarding,
    ListConnections,
    ListDaemons,
    ListTable,
    ListTimeouts,
    Protocol,
    Save,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    Timeouts,
    Tunnel,
    TunnelFlag,
    TunnelType,
    View,
    Zero,
)
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.shell_words import split_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.ipvs.model import Change, Question

DEFAULT_SCHEDULER = "wlc"
_DEFAULT_PERSISTENCE = 360  # seconds; IP_VS_TEMPLATE_TIMEOUT
PERSISTENCE_MAX = 2_678_400  # 31 days
_TIMEOUT_MAX = 1_296_000  # 15 days
PORT_MAX = 0xFFFF
WEIGHT_MAX = 0xFFFF
_THRESHOLD_MAX = 0x7FFFFFFF
_MARK_MAX = 0xFFFFFFFF
_PROTOCOLS = {"tcp-service": Protocol.TCP, "udp-service": Protocol.UDP, "sctp-service": Protocol.SCTP}
_FORWARDING = {names.long_option: kind for kind, names in FORWARDING_NAMES.items() if names.long_option}
_CHECKSUMS = {"tun-nocsum": 0, "tun-csum": TunnelFlag.CHECKSUM, "tun-remcsum": TunnelFlag.REMOTE_CHECKSUM}
_VIEWS = {
    "stats": View.STATISTICS,
    "rate": View.RATES,
    "thresholds": View.THRESHOLDS,
    "persistent-conn": View.PERSISTENCE,
    "tun-info": View.TUNNELS,
}


class Endpoint(NamedTuple):
    """An address, packed, and a port where one is given."""

    family: int
    address: bytes
    port: int | None


def parse(text: str, *, forwarding: Forwarding = Forwarding.MASQUERADE) -> Change | Question:
    """What one command line asks for; ``forwarding`` is that of servers which do not say.

    :raise InputError: it is not in the grammar, or a value is outside its limits.
    """
    return interpret(read_line(split_words(text)), forwarding)


def interpret(line: Line, forwarding: Forwarding) -> Change | Question:
    """What the words mean.

    :raise InputError: as ``parse``.
    """
    options = line.options
    match line.command:
        case Command.ADD_SERVICE:
            return AddService(_service(line))
        case Command.EDIT_SERVICE:
            return EditService(_service(line))
        case Command.DELETE_SERVICE:
            return DeleteService(_needed_key(line))
        case Command.ADD_SERVER:
            key = _needed_key(line)
            return AddServer(key, _server(line, key, forwarding))
        case Command.EDIT_SERVER:
            key = _needed_key(line)
            return EditServer(key, _server(line, key, forwarding))
        case Command.DELETE_SERVER:
            key = _needed_key(line)
            return DeleteServer(key, _server_key(line, key))
        case Command.LIST:
            return _list(line)
        case Command.ZERO:
            return Zero(_key(options))
        case Command.CLEAR:
            return Clear()
        case Command.SAVE:
            return Save()
        case Command.SET:
            names = ("the TCP timeout", "the TCPFIN timeout", "the UDP timeout")
            values = (_number(value, name, 0, _TIMEOUT_MAX) for name, value in zip(names, line.operands, strict=True))
            return SetTimeouts(Timeouts(*values))
        case Command.START_DAEMON:
            return StartDaemon(_daemon(line))
        case Command.STOP_DAEMON:
            return StopDaemon(_state(line.operands[0]))
        case Command.RESTORE:
            raise InputError("--restore among --parameters has no input", hint="use kata-ipvs ipvsadm --restore FILE")


def _service(line: Line) -> ServiceSpec:
    options = line.options
    key = _needed_key(line)
    scheduler = options.get("scheduler", DEFAULT_SCHEDULER)
    if scheduler not in SCHEDULERS:
        raise InputError(f"scheduler {scheduler!a} is unknown", hint=f"one of {', '.join(SCHEDULERS)}")
    flags, timeout = 0, 0
    if "persistent" in options:
        flags |= ServiceFlag.PERSISTENT
        given = options["persistent"]
        timeout = _number(given, "the persistence", 1, PERSISTENCE_MAX) if given else _DEFAULT_PERSISTENCE
    elif not key.mark and not key.port:
        raise InputError(f"{key.description} has port 0", hint="only a persistent service can have that; give 1-65535")
    if "ops" in options:
        if not key.mark and key.protocol != Protocol.UDP:
            raise InputError(
                f"option --ops does not go with {key.description}", hint="one-packet scheduling is for UDP"
            )
        flags |= ServiceFlag.ONE_PACKET
    for name in filter(None, options.get("sched-flags", "").split(",")):
        flags |= _scheduler_flag(scheduler, name)
    netmask = _netmask(options.get("netmask"), key.family)
    engine = options.get("pe", "")
    if "pe" in options and not (engine.isascii() and engine.isalnum() and len(engine) <= 15):
        raise InputError(f"persistence engine {engine!a} is not possible", hint="'sip' is one")
    return ServiceSpec(key, scheduler, int(flags), timeout, netmask, engine)


def _scheduler_flag(scheduler: str, name: str) -> ServiceFlag:
    names = SCHEDULER_FLAGS.get(scheduler, PLAIN_FLAGS)
    for known, plain, bit in zip(names, PLAIN_FLAGS, FLAG_BITS, strict=True):
        if name in (known, plain):
            return bit
    raise InputError(f"scheduler {scheduler} has no flag {name!a}", hint=f"it has {', '.join(names)}")


def _netmask(text: str | None, family: int) -> int:
    if family == AF_INET6:
        return FULL_PREFIX if text is None else _number(text, "the netmask of an IPv6 service", 1, FULL_PREFIX)
    if text is None:
        return FULL_MASK
    packed = IpAddress.parse(text)
    if packed is None or len(packed) != 4:
        raise InputError(f"netmask {text!a} is no IPv4 netmask", hint="write it like 255.255.255.0")
    return int.from_bytes(packed, "big")


def _server(line: Line, service: ServiceKey, default: Forwarding) -> ServerSpec:
    options = line.options
    forwarding = next((kind for name, kind in _FORWARDING.items() if name in options), default)
    key = _server_key(line, service)
    if not service.mark and forwarding in (Forwarding.TUNNEL, Forwarding.ROUTE):
        # Only address translation can change a port; ipvsadm silently takes the service's for the others.
        key = key._replace(port=service.port)
    if key.family != service.family and forwarding != Forwarding.TUNNEL:
        raise InputError(
            f"server {key.text} and {service.description} are of different address families",
            hint="only tunnelling (-i) can cross them",
        )
    upper = _number(options.get("u-threshold", "0"), "the upper threshold", 0, _THRESHOLD_MAX)
    lower = _number(options.get("l-threshold", "0"), "the lower threshold", 0, _THRESHOLD_MAX)
    if upper < lower:
        raise InputError(f"the lower threshold {lower} is above the upper one {upper}")
    weight = _number(options.get("weight", "1"), "the weight", 0, WEIGHT_MAX)
    return ServerSpec(key, forwarding, weight, upper, lower, _tunnel(options, forwarding))


def _tunnel(options: Mapping[str, str], forwarding: Forwarding) -> Tunnel:
    given = [name for name in ("tun-type", "tun-port", *_CHECKSUMS) if name in options]
    if not given:
        return Tunnel()
    if forwarding != Forwarding.TUNNEL:
        raise InputError(f"option --{given[0]} needs tunnelling (-i)")
    name = options.get("tun-type", "ipip")
    kinds = {kind.name.lower(): kind for kind in TunnelType}
    if name not in kinds:
        raise InputError(f"tunnel type {name!a} is unknown", hint=f"one of {', '.join(kinds)}")
    kind = kinds[name]
    port = 0
    if kind == TunnelType.GUE:
        if "tun-port" not in options:
            raise InputError("a tunnel of type gue needs --tun-port")
        port = _number(options["tun-port"], "the tunnel port", 1, PORT_MAX)
    elif "tun-port" in options:
        raise InputError(f"option --tun-port does not go with tunnel type {name}")
    flags = next((value for option, value in _CHECKSUMS.items() if option in options), 0)
    if kind == TunnelType.IPIP and any(option in options for option in _CHECKSUMS):
        raise InputError(f"option --{given[-1]} does not go with tunnel type ipip")
    if kind == TunnelType.GRE and flags == TunnelFlag.REMOTE_CHECKSUM:
        raise InputError("option --tun-remcsum does not go with tunnel type gre")
    return Tunnel(kind, port, int(flags))


def _server_key(line: Line, service: ServiceKey) -> ServerKey:
    text = line.options.get("real-server")
    if text is None:
        raise InputError(f"--{line.command.value} lacks its server", hint="give -r ADDRESS:PORT")
    end = endpoint(text, "real server")
    return ServerKey(end.family, end.address, service.port if end.port is None else end.port)


def _needed_key(line: Line) -> ServiceKey:
    key = _key(line.options)
    if key is None:
        raise InputError(f"--{line.command.value} lacks its service", hint="give -t, -u, --sctp-service or -f")
    return key


def _key(options: Mapping[str, str]) -> ServiceKey | None:
    ipv6 = "ipv6" in options
    if "fwmark-service" in options:
        mark = _number(options["fwmark-service"], "the firewall mark", 1, _MARK_MAX)
        return ServiceKey(AF_INET6 if ipv6 else AF_INET, Protocol.NONE, b"", 0, mark)
    if ipv6:
        raise InputError("option --ipv6 needs --fwmark-service", hint="addresses say their family themselves")
    for name, protocol in _PROTOCOLS.items():
        if name in options:
            end = endpoint(options[name], "virtual service")
            return ServiceKey(end.family, protocol, end.address, end.port or 0)
    return None


@lru_cache(maxsize=64)
def endpoint(text: str, what: str) -> Endpoint:
    """``10.0.0.1:80``, ``10.0.0.1`` or ``[fd00::1]:80``; ``what`` is what it is called when it is wrong.

    :raise InputError: it is none of these.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        separated = rest[:1] == ":" and bool(rest[1:])
        complete = bool(bracket) and separated
        port = rest[1:]
    else:
        host, colon, port = text.partition(":")
        complete = not colon or bool(port)
    packed = IpAddress.parse(host) if complete else None
    if packed is None or (len(packed) == 16) != text.startswith("["):
        raise InputError(
            f"{what} {text!a} is no address and port",
            hint="write 10.0.0.1:80 or [fd00::1]:80; names are not looked up, the host's mean nothing in the container",
        )
    number = _number(port, f"the port of {what} {text!a}", 0, PORT_MAX) if port else None
    return Endpoint(AF_INET if len(packed) == 4 else AF_INET6, packed, number)


def _number(text: str, what: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and low <= int(text) <= high):
        raise InputError(f"{what} is {text!a}", hint=f"it must be a number, {low}-{high}")
    return int(text)


def _list(line: Line) -> Question:
    options = line.options
    key = _key(options)
    kinds = [name for name in ("connection", "timeout", "daemon") if name in options]
    if kinds and key is not None:
        raise InputError(f"option --{kinds[0]} shows everything: it takes no service")
    if len(kinds) > 1:
        raise InputError(f"--{kinds[0]} and --{kinds[1]} exclude each other")
    if "connection" in options:
        return ListConnections(with_engine="persistent-conn" in options)
    if "timeout" in options:
        return ListTimeouts()
    if "daemon" in options:
        return ListDaemons()
    view = next((view for name, view in _VIEWS.items() if name in options), View.CONNECTIONS)
    return ListTable(key, view, exact="exact" in options, is_sorted="nosort" not in options)


def _state(text: str) -> DaemonState:
    states = {state.name.lower(): state for state in DaemonState}
    if text not in states:
        raise InputError(f"daemon state {text!a} is unknown", hint="master or backup")
    return states[text]


def _daemon(line: Line) -> Daemon:
    options = line.options
    interface = options.get("mcast-interface", "")
    if not interface or len(interface.encode()) > 15:
        raise InputError("--start-daemon lacks the interface that it uses", hint="give --mcast-interface NAME")
    group = b""
    if "mcast-group" in options:
        group = IpAddress.parse(options["mcast-group"]) or b""
        if not group:
            raise InputError(f"multicast group {options['mcast-group']!a} is no address")

    def number(name: str, what: str, low: int, high: int) -> int:
        return _number(options[name], what, low, high) if name in options else 0

    return Daemon(
        _state(line.operands[0]),
        interface,
        number("syncid", "the sync ID", 0, 255),
        number("sync-maxlen", "the length of a sync message", 1, 65535 - 28),
        group,
        number("mcast-port", "the multicast port", 1, PORT_MAX),
        number("mcast-ttl", "the multicast TTL", 1, 255),
    )
