"""A snapshot of the virtual servers that a batch is about to change, on disk before the first of them changes.

It is JSON and not rules, since programs in the container can create by netlink what ipvsadm's grammar cannot express.
"""

from __future__ import annotations

from kata_runtime.ipvs.model import (
    Forwarding,
    Protocol,
    ServerKey,
    ServerSpec,
    ServiceKey,
    ServiceSpec,
    Tunnel,
    TunnelType,
)
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata_runtime.ipvs.rules import Table


class Snapshot(NamedTuple):
    """The services ``keys`` as they were; those that ``table`` lacks did not exist."""

    keys: frozenset[ServiceKey]
    table: Table


def packed(snapshot: Snapshot) -> list[object]:
    """The snapshot as JSON can hold it."""
    return [_packed(key, snapshot.table) for key in snapshot.keys]


def unpacked(document: Any) -> Snapshot:
    """The snapshot that ``packed`` turned into ``document``.

    :raise ValueError, TypeError: it is damaged.
    """
    entries = [_unpacked(entry) for entry in document]
    table = {key: (spec, servers) for key, spec, servers in entries if spec is not None}
    return Snapshot(frozenset(key for key, _, _ in entries), table)


def _packed(key: ServiceKey, table: Table) -> list[object]:
    """Key, spec and servers; spec and servers are None for a service that did not exist."""
    packed = [key.family, key.protocol, key.address.hex(), key.port, key.mark]
    if key not in table:
        return [packed, None, None]
    spec, servers = table[key]
    return [packed, spec[1:], [_packed_server(server) for server in servers.values()]]


def _packed_server(spec: ServerSpec) -> list[object]:
    key = spec.key
    return [key.family, key.address.hex(), key.port, *spec[1:5], *spec.tunnel]


def _unpacked(entry: Any) -> tuple[ServiceKey, ServiceSpec | None, dict[ServerKey, ServerSpec]]:
    (family, protocol, address, port, mark), spec, servers = entry
    key = ServiceKey(family, Protocol(protocol), bytes.fromhex(address), port, mark)
    if spec is None:
        return key, None, {}
    scheduler, flags, timeout, netmask, engine = spec
    made = [_unpacked_server(server) for server in servers]
    return key, ServiceSpec(key, scheduler, flags, timeout, netmask, engine), {server.key: server for server in made}


def _unpacked_server(packed: Any) -> ServerSpec:
    family, address, port, forwarding, weight, upper, lower, kind, tunnel_port, flags = packed
    key = ServerKey(family, bytes.fromhex(address), port)
    tunnel = Tunnel(TunnelType(kind), tunnel_port, flags)
    return ServerSpec(key, Forwarding(forwarding), weight, upper, lower, tunnel)
