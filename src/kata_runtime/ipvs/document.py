"""Tables as JSON: one document a question; the schema is in docs/ipvs.md."""

from __future__ import annotations

import json
from _socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING

from kata_runtime.ipvs import listing
from kata_runtime.ipvs.model import (
    Forwarding,
    ListConnections,
    ListDaemons,
    ListTimeouts,
    ServiceFlag,
    flag_names,
)
from kata_runtime.ipvs.order import in_order

if TYPE_CHECKING:
    from kata_runtime.ipvs.engine import Engine
    from kata_runtime.ipvs.model import Daemon, Question, Server, Service, ServiceKey


def render(engine: Engine, question: Question) -> str:
    """The answer to ``question`` as one line of compact JSON."""
    return json.dumps(_document(engine, question), separators=(",", ":")) + "\n"


def _document(engine: Engine, question: Question) -> object:
    match question:
        case ListConnections():
            return [entry._asdict() for entry in engine.connections()]
        case ListTimeouts():
            return engine.timeouts()._asdict()
        case ListDaemons():
            return [_daemon(daemon) for daemon in engine.daemons()]
        case _:
            key = getattr(question, "key", None)
            services = engine.services() if key is None else [engine.service(key)]
            return [_service(service) for service in in_order(services)]


def _service(service: Service) -> dict[str, object]:
    wish = service.wish
    document = _key(wish.key)
    document["scheduler"] = wish.scheduler
    document["schedulerFlags"] = flag_names(wish.scheduler, wish.flags)
    document["persistence"] = wish.timeout if wish.flags & ServiceFlag.PERSISTENT else 0
    document["netmask"] = listing.netmask_text(wish)
    document["engine"] = wish.engine
    document["onePacket"] = bool(wish.flags & ServiceFlag.ONE_PACKET)
    document["statistics"] = service.statistics._asdict()
    document["servers"] = [_server(server) for server in service.servers]
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
    wish = server.wish
    document: dict[str, object] = {
        "address": inet_ntop(wish.key.family, wish.key.address),
        "port": wish.key.port,
        "forwarding": wish.forwarding.name.lower(),
        "weight": wish.weight,
        "upperThreshold": wish.upper,
        "lowerThreshold": wish.lower,
        "activeConnections": server.active,
        "inactiveConnections": server.inactive,
        "persistentConnections": server.persistent,
        "statistics": server.statistics._asdict(),
    }
    if wish.forwarding == Forwarding.TUNNEL:
        tunnel = wish.tunnel
        document["tunnel"] = {"type": tunnel.type.name.lower(), "port": tunnel.port, "flags": tunnel.flags}
    return document
