"""Tables as JSON: one document for each query; the schema is in docs/ipvs.md."""

from __future__ import annotations

import json
from _socket import AF_INET, AF_INET6, inet_ntop

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs import listing
from kata_runtime.ipvs.listing_order import by_service, servers_in_order
from kata_runtime.ipvs.model import (
    Forwarding,
    ListConnections,
    ListDaemons,
    ListTimeouts,
    ServiceFlag,
    flag_names,
)
from kata_runtime.ipvs.sockopt_table import ServerDetails

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_runtime.ipvs.engine import Engine
    from kata_runtime.ipvs.model import Daemon, Question, Server, Service, ServiceKey


# What is held before it can be brought into order; 200,000 rules are 80 MiB.
_TEXT_MAX = 96 * 1024 * 1024  # characters


def render(engine: Engine, question: Question) -> Iterator[str]:
    """The answer to ``question`` as one line of compact JSON, in parts.

    :raise ProtocolError: the guest lists more than can be held.
    """
    match question:
        case ListConnections():
            yield from _array(_dumped(entry._asdict()) for entry in engine.connections())
        case ListTimeouts():
            yield _dumped(engine.timeouts()._asdict())
        case ListDaemons():
            yield from _array(_dumped(_daemon(daemon)) for daemon in engine.daemons())
        case _:
            key = getattr(question, "key", None)
            everything = ServerDetails(statistics=True, tunnels=True)
            services = engine.services(engine.heads(), everything) if key is None else [engine.service(key)]
            yield from _array(by_service(_gathered(services)))
    yield "\n"


def _dumped(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


def _array(items: Iterable[str]) -> Iterator[str]:
    separator = "["
    for item in items:
        yield separator
        yield item
        separator = ","
    yield "]" if separator == "," else "[]"


def _gathered(services: Iterable[Service]) -> list[tuple[ServiceKey, str]]:
    """The JSON of each service, made while services arrive: the text takes less memory than the decoded service."""
    pairs: list[tuple[ServiceKey, str]] = []
    held = 0
    for service in services:
        ordered = servers_in_order(service.servers, lambda server: server.spec.key)
        servers = ",".join(_dumped(_server(server)) for server in ordered)
        made = f'{_dumped(_service(service))[:-1]},"servers":[{servers}]}}'
        pairs.append((service.spec.key, made))
        held += len(made)
        if held > _TEXT_MAX:
            raise ProtocolError("the guest lists more virtual servers than can be held in memory")
    return pairs


def _service(service: Service) -> dict[str, object]:
    """A service without its servers, which come last in its object."""
    spec = service.spec
    document = _key(spec.key)
    document["scheduler"] = spec.scheduler
    document["schedulerFlags"] = flag_names(spec.scheduler, spec.flags)
    document["persistence"] = spec.timeout if spec.flags & ServiceFlag.PERSISTENT else 0
    document["netmask"] = listing.netmask_text(spec)
    document["engine"] = spec.engine
    document["onePacket"] = bool(spec.flags & ServiceFlag.ONE_PACKET)
    document["statistics"] = service.statistics._asdict()
    return document


def _daemon(daemon: Daemon) -> dict[str, object]:
    family = AF_INET6 if len(daemon.group) == 16 else AF_INET
    group = inet_ntop(family, daemon.group) if daemon.group else ""
    return {**daemon._asdict(), "state": daemon.state.name.lower(), "group": group}


def _key(key: ServiceKey) -> dict[str, object]:
    family = "IPv6" if key.family == AF_INET6 else "IPv4"
    if key.mark:
        return {"protocol": "FWM", "family": family, "mark": key.mark}
    return {
        "protocol": key.protocol.name,
        "family": family,
        "address": inet_ntop(key.family, key.address),
        "port": key.port,
    }


def _server(server: Server) -> dict[str, object]:
    spec = server.spec
    document: dict[str, object] = {
        "address": inet_ntop(spec.key.family, spec.key.address),
        "port": spec.key.port,
        "forwarding": spec.forwarding.name.lower(),
        "weight": spec.weight,
        "upperThreshold": spec.upper,
        "lowerThreshold": spec.lower,
        "activeConnections": server.active,
        "inactiveConnections": server.inactive,
        "persistentConnections": server.persistent,
        "statistics": server.statistics._asdict(),
    }
    if spec.forwarding == Forwarding.TUNNEL:
        tunnel = spec.tunnel
        document["tunnel"] = {"type": tunnel.type.name.lower(), "port": tunnel.port, "flags": tunnel.flags}
    return document
