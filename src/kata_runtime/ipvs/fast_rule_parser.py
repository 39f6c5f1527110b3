"""Parses the usual forms of rules, such as -S writes, in a tenth of the time that the full grammar takes.

Everything else, and every error, is left to the grammar. A line that is parsed here means the same to both; a test
compares them.
"""

from __future__ import annotations

from _socket import AF_INET, inet_pton

from kata_runtime.errors import InputError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.ipvsadm_grammar import (
    DEFAULT_SCHEDULER,
    PERSISTENCE_MAX,
    PORT_MAX,
    WEIGHT_MAX,
    Endpoint,
    endpoint,
)
from kata_runtime.ipvs.model import (
    FORWARDING_NAMES,
    FULL_MASK,
    FULL_PREFIX,
    SCHEDULERS,
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Forwarding,
    Protocol,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    Tunnel,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.ipvs.model import Rule

_FORWARDING = {names.option: kind for kind, names in FORWARDING_NAMES.items() if names.option}
_PROTOCOLS = {"-t": Protocol.TCP, "-u": Protocol.UDP, "--sctp-service": Protocol.SCTP}
# Without the call of the class, which takes a fifth of the time of a line.
_new = tuple.__new__
_NO_MORE = (0, 0, Tunnel())  # thresholds and tunnel of a server
_SERVER_COMMANDS = frozenset(("-a", "-e", "-d"))
_SCHEDULERS = frozenset(SCHEDULERS)
_PERSISTENT = int(ServiceFlag.PERSISTENT)


def read(text: str) -> Rule | None:
    """The rule on a line of a file, or None if the full grammar has to parse the line.

    A server without a forwarding option gets direct routing, as in ipvsadm's own files.
    """
    if len(text) > _LINE_MAX:
        return None
    head, option, tail = text.partition(" -r ")
    return _server_rule(head, tail) if option else _service_rule(text.split(" "))


def read_service(text: str) -> tuple[ServiceSpec, list[ServerSpec]] | None:
    """A line of -A, without this option, and the -a lines of the same service that follow it, as -S writes them.

    It takes a third of the time of reading each line. None if the lines have to be read one by one.
    """
    line = text.partition("\n")[0]
    words = ["-A", *line.split(" ")] if len(line) < _LINE_MAX else []
    rule = _service_rule(words)
    if type(rule) is not AddService:
        return None
    spec = rule.spec
    first, *servers = text.split(f"\n-a {words[1]} {words[2]} -r ")
    if first != line:
        return None
    try:
        return spec, list(map(_known_servers(spec.key.family, spec.key.port).__getitem__, servers))
    except KeyError:
        return None


class _KnownServers(dict[str, ServerSpec]):
    """What stands behind -r in lines about services of one family and port; other texts are no keys."""

    def __init__(self, family: int, port: int) -> None:
        self._family, self._port = family, port

    def __missing__(self, text: str) -> ServerSpec:
        spec = _parse_server(text, self._family, self._port) if len(text) < _LINE_MAX else None
        if spec is None:
            raise KeyError(text)
        if len(self) >= _KNOWN_SERVERS:
            self.clear()
        self[text] = spec
        return spec


def _server_rule(head: str, tail: str) -> Rule | None:
    found = _server_command(head)
    if found is None:
        return None
    command, service, family, port = found
    if command == "-d":
        server = _server(tail)
        return None if server is None else DeleteServer(service, server)
    spec = _server_spec(tail, family, port)
    if spec is None:
        return None
    return _new(AddServer, (service, spec)) if command == "-a" else EditServer(service, spec)


def _service_rule(words: list[str]) -> Rule | None:
    size = len(words)
    if not 3 <= size <= _WORDS_MAX:
        return None
    command = words[0]
    service = _service(words[1], words[2])
    if service is None:
        return None
    if command == "-A" or command == "-E":
        made = _service_spec(words, size, service)
        if made is None:
            return None
        return AddService(made) if command == "-A" else EditService(made)
    return DeleteService(service) if command == "-D" and size == 3 else None


# What the lines about the servers of one service begin with.
@lru_cache(maxsize=1 << 12)
def _server_command(text: str) -> tuple[str, ServiceKey, int, int] | None:
    """``-a SERVICE``: the command, and the service with its family and port."""
    words = text.split(" ")
    if len(words) != 3 or words[0] not in _SERVER_COMMANDS:
        return None
    service = _service(words[1], words[2])
    return None if service is None else (words[0], service, service.family, service.port)


# The same servers stand behind many services.
@lru_cache(maxsize=1 << 15)
def _server_spec(text: str, family: int, port: int) -> ServerSpec | None:
    return _parse_server(text, family, port)


def _parse_server(text: str, family: int, port: int) -> ServerSpec | None:
    """``ADDRESS:PORT [-m|-g|-i] [-w WEIGHT]``, of a service of this family and port."""
    end, _, options = text.partition(" ")
    key = _server(end)
    found = _server_options(options)
    if key is None or found is None or key.family != family:
        return None
    forwarding, weight = found
    if forwarding is not Forwarding.MASQUERADE and key.port != port:
        key = key._replace(port=port)
    return _new(ServerSpec, (key, forwarding, weight, *_NO_MORE))


@lru_cache(maxsize=1 << 12)
def _server_options(text: str) -> tuple[Forwarding, int] | None:
    """``[-m|-g|-i] [-w WEIGHT]``"""
    words = text.split(" ") if text else []
    forwarding = Forwarding.ROUTE
    if words and words[0] in _FORWARDING:
        forwarding = _FORWARDING[words.pop(0)]
    if not words:
        return forwarding, 1
    weight = _number(words[1], WEIGHT_MAX) if len(words) == 2 and words[0] == "-w" else None
    return None if weight is None else (forwarding, weight)


def _service_spec(words: list[str], size: int, key: ServiceKey) -> ServiceSpec | None:
    """``[-s SCHEDULER] [-p SECONDS]``"""
    scheduler = DEFAULT_SCHEDULER
    place = 3
    if size > place + 1 and words[place] == "-s":
        scheduler = words[place + 1]
        place += 2
    flags = timeout = 0
    if size == place + 2 and words[place] == "-p":
        number = _number(words[place + 1], PERSISTENCE_MAX)
        if not number:
            return None
        flags, timeout = _PERSISTENT, number
        place += 2
    if size != place or scheduler not in _SCHEDULERS or not (flags or key.port):
        return None
    return ServiceSpec(key, scheduler, flags, timeout, FULL_MASK if key.family == AF_INET else FULL_PREFIX)


# Without the bounds a file could fill the caches.
_LINE_MAX = 256  # characters; -a --sctp-service and -r with IPv6 addresses take 137
_WORDS_MAX = 7
_KNOWN_SERVERS = 1 << 13  # specs by their text, for each of
_KNOWN_PORTS = 4


@lru_cache(maxsize=_KNOWN_PORTS)
def _known_servers(family: int, port: int) -> _KnownServers:
    return _KnownServers(family, port)


def _number(text: str, high: int) -> int | None:
    if not (text.isdecimal() and text.isascii() and len(text) < 8):
        return None
    number = int(text)
    return number if number <= high else None


@lru_cache(maxsize=1 << 12)
def _service(option: str, text: str) -> ServiceKey | None:
    protocol = _PROTOCOLS.get(option)
    # Most have a port, and are read in a fifth of the time then.
    end = None if protocol is None else _server(text) or _end(text)
    return None if protocol is None or end is None else ServiceKey(end.family, protocol, end.address, end.port or 0)


def _server(text: str) -> ServerKey | None:
    host, _, digits = text.partition(":")
    port = _port(digits)
    if port is None:
        end = _end(text)
        return None if end is None or end.port is None else ServerKey(end.family, end.address, end.port)
    try:
        return _new(ServerKey, (AF_INET, inet_pton(AF_INET, host), port))
    except (OSError, ValueError):  # ValueError: characters that no address has
        return None


def _end(text: str) -> Endpoint | None:
    try:
        return endpoint(text, "")
    except InputError:
        return None


@lru_cache(maxsize=1 << 10)
def _port(text: str) -> int | None:
    return _number(text, PORT_MAX)
