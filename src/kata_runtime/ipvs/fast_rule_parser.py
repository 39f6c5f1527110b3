"""Parses the usual forms of rules, such as -S writes, in a tenth of the time that the full grammar takes.

Everything else, and every error, is left to the grammar. A line that is parsed here means the same to both; a test
compares them.
"""

from __future__ import annotations

from _socket import AF_INET

from kata_runtime.errors import InputError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.ipvsadm_grammar import (
    DEFAULT_SCHEDULER,
    PERSISTENCE_MAX,
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
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.ipvs.model import Rule

_FORWARDING = {names.option: kind for kind, names in FORWARDING_NAMES.items() if names.option}
_PROTOCOLS = {"-t": Protocol.TCP, "-u": Protocol.UDP, "--sctp-service": Protocol.SCTP}
_SCHEDULERS = frozenset(SCHEDULERS)
_PERSISTENT = int(ServiceFlag.PERSISTENT)


def read(text: str) -> Rule | None:
    """The rule on a line of a file, or None if the full grammar has to parse the line.

    A server without a forwarding option gets direct routing, as in ipvsadm's own files.
    """
    words = text.split(" ")
    size = len(words)
    if not 3 <= size <= _WORDS_MAX:
        return None
    command = words[0]
    service = _service(words[1], words[2])
    if service is None:
        return None
    if command == "-a" or command == "-e":  # compared one by one: the first nearly always matches
        spec = _server_spec(words, size, service)
        if spec is None:
            return None
        return AddServer(service, spec) if command == "-a" else EditServer(service, spec)
    if command == "-A" or command == "-E":
        made = _service_spec(words, size, service)
        if made is None:
            return None
        return AddService(made) if command == "-A" else EditService(made)
    if command == "-d" and size == 5 and words[3] == "-r":
        server = _server(words[4])
        return None if server is None else DeleteServer(service, server)
    return DeleteService(service) if command == "-D" and size == 3 else None


def _server_spec(words: list[str], size: int, service: ServiceKey) -> ServerSpec | None:
    """``-r ADDRESS:PORT [-m|-g|-i] [-w WEIGHT]``"""
    if size < 5 or words[3] != "-r":
        return None
    key = _server(words[4])
    if key is None or key.family != service.family:
        return None
    forwarding = Forwarding.ROUTE
    weight = 1
    place = 5
    if size > 5 and words[5] in _FORWARDING:
        forwarding = _FORWARDING[words[5]]
        place = 6
    if size == place + 2 and words[place] == "-w":
        number = _weight(words[place + 1])
        if number is None:
            return None
        weight = number
        place += 2
    if size != place:
        return None
    if forwarding is not Forwarding.MASQUERADE and key.port != service.port:
        key = key._replace(port=service.port)
    return ServerSpec(key, forwarding, weight)


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


# Without the bound a hostile file could fill the caches with long words.
_WORD_MAX = 64  # characters; [fd00:1111:2222:3333:4444:5555:6666:7777]:65535 has 47
_WORDS_MAX = 8


def _number(text: str, high: int) -> int | None:
    if not (text.isdecimal() and text.isascii() and len(text) < 8):
        return None
    number = int(text)
    return number if number <= high else None


@lru_cache(maxsize=1 << 10)
def _weight(text: str) -> int | None:
    return _number(text, WEIGHT_MAX)


@lru_cache(maxsize=1 << 12)
def _service(option: str, text: str) -> ServiceKey | None:
    protocol = _PROTOCOLS.get(option)
    end = None if protocol is None else _end(text)
    return None if protocol is None or end is None else ServiceKey(end.family, protocol, end.address, end.port or 0)


@lru_cache(maxsize=1 << 15)
def _server(text: str) -> ServerKey | None:
    end = _end(text)
    return None if end is None or end.port is None else ServerKey(end.family, end.address, end.port)


def _end(text: str) -> Endpoint | None:
    if len(text) > _WORD_MAX:
        return None
    try:
        return endpoint(text, "")
    except InputError:
        return None
