"""The older interface's entries: exact bytes, the same servers as netlink's, hostile bytes."""

from __future__ import annotations

import struct
from _socket import AF_INET
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.options_guest import OptionsGuest
from tests.unit.ipvs.strategies import server_specs, service_specs

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs import codec, sockopt_table
from kata_runtime.ipvs.model import (
    Forwarding,
    Protocol,
    Server,
    ServerKey,
    ServerSpec,
    ServiceKey,
    ServiceSpec,
    Statistics,
    Tunnel,
)
from kata_runtime.ipvs.socket_options import covers, identity_of
from kata_runtime.ipvs.sockopt_table import ServerDetails
from kata_runtime.netlink.generic import pack_generic
from kata_runtime.netlink.message import pack_attribute, pack_nested, pack_u32

if TYPE_CHECKING:
    from collections.abc import Sequence

_GET_SERVERS = 1156
_KEY = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80)
_MARK = ServiceKey(AF_INET, Protocol.NONE, b"", 0, 17)
_NONE = bytes(96)  # an entry that the kernel left alone
_LITTLE = ServerDetails(statistics=False, tunnels=False)
_ALL = ServerDetails(statistics=True, tunnels=True)


def _server_entry(spec: ServerSpec, numbers: Sequence[int], counted: Sequence[int]) -> bytes:
    """struct ip_vs_dest_entry as the C compiler lays it out; what is counted has 32 bits, but for bytes."""
    key = spec.key
    fixed = (key.address, key.port.to_bytes(2, "big"), spec.forwarding | 0x100, spec.weight, spec.upper, spec.lower)
    narrow = [value if place in (3, 4) else value & 0xFFFFFFFF for place, value in enumerate(counted)]
    return struct.pack("@4s2sIIIIIII0QIIIQQIIIII0Q", *fixed, *numbers, *narrow)


def _servers(
    guest: OptionsGuest, services: list[tuple[ServiceKey, int]], details: ServerDetails
) -> list[list[Server] | None]:
    asked = [(identity_of(key), count) for key, count in services]
    return list(sockopt_table.servers(guest, asked, details, lambda server: server))


def test_exact_requests() -> None:
    """A service is asked for by protocol, address and port, or by its mark, with room for a server more than it has."""
    guest = OptionsGuest({_GET_SERVERS: bytes(240)})
    assert _servers(guest, [(_KEY, 0), (_MARK, 0)], _LITTLE) == [[], []]
    named = ["06000000 0a000001 00500000 00000000", "00000000 00000000 00000000 11000000"]
    assert [(number, [(size, key.hex(" ", -4)) for size, key in block]) for number, block in guest.asked] == [
        (_GET_SERVERS, [(120, f"{key} 01000000") for key in named]),
    ]


@st.composite
def _tables(draw: st.DrawFn) -> list[tuple[ServiceSpec, list[Server]]]:
    """Services of IPv4 and their servers, of which some have counted much."""
    services = service_specs().filter(lambda spec: covers(spec.key))
    numbers = st.integers(0, 0xFFFFFFFF)
    wide = st.one_of(st.integers(0, (1 << 35) - 1), st.integers(0, (1 << 64) - 1))
    table = []
    for service in draw(st.lists(services, max_size=4, unique_by=lambda spec: spec.key[1:])):
        servers = []
        usual = server_specs(service.key).filter(lambda spec: spec.key.family == AF_INET and any(spec.key.address))
        for spec in draw(st.lists(usual, max_size=4)):
            counted = [draw(wide if place in (3, 4) else numbers) for place in range(10)]
            connections = [draw(numbers) for _ in range(3)]
            active, inactive, persistent = connections
            servers.append(Server(spec, active, inactive, persistent, Statistics(*counted)))
        table.append((service, servers))
    return table


def _by_netlink(server: Server) -> Server:
    counters = b"".join(pack_attribute(kind, struct.pack("=Q", value)) for kind, value in enumerate(server[4], 1))
    numbers = b"".join(pack_u32(kind, value) for kind, value in zip((7, 8, 9), server[1:4], strict=True))
    attributes = codec.pack_server(server.spec) + numbers + pack_nested(12, counters)
    return codec.unpack_server(pack_generic(codec.NEW_DEST, 1, pack_nested(2, attributes)), AF_INET)


@given(_tables(), st.integers(1, 300))
def test_the_same_servers_as_netlink(table: list[tuple[ServiceSpec, list[Server]]], size: int) -> None:
    """Wherever the answer is cut, it is decoded as netlink's strict decoder does, or left to netlink."""
    packed = b"".join(
        bytes(24) + b"".join(_server_entry(server.spec, server[1:4], server.statistics) for server in servers) + _NONE
        for _, servers in table
    )
    keys = [(spec.key, len(servers)) for spec, servers in table]
    guest = OptionsGuest({_GET_SERVERS: packed}, size)
    read = [[_by_netlink(server) for server in servers] for _, servers in table]
    expected: list[list[Server] | None] = []
    for servers in read:
        is_left = any(
            server.spec.forwarding == Forwarding.TUNNEL or max(server.statistics[3:5]) >= 1 << 35 for server in servers
        )
        expected.append(None if is_left else servers)
    assert _servers(guest, keys, _ALL) == expected
    assert _servers(guest, keys, _LITTLE) == [
        [server._replace(statistics=Statistics(), spec=server.spec._replace(tunnel=Tunnel())) for server in servers]
        for servers in read
    ]


def test_what_it_cannot_tell() -> None:
    """A service with servers of another family, whose entries stay empty, or with more by now is left to netlink."""
    spec = ServerSpec(ServerKey(AF_INET, bytes([10, 0, 0, 2]), 80), Forwarding.TUNNEL, 1)
    known = _server_entry(spec, (0,) * 3, (0,) * 10)
    guest = OptionsGuest({_GET_SERVERS: bytes(24) + known + _NONE * 2})
    assert _servers(guest, [(_KEY, 2)], _LITTLE) == [None]
    grown = OptionsGuest({_GET_SERVERS: bytes(24) + known * 2})
    assert _servers(grown, [(_KEY, 1)], _LITTLE) == [None]
    many = OptionsGuest({_GET_SERVERS: b""})
    assert (_servers(many, [(_KEY, 0xFFFFFFFF)], _LITTLE), many.asked) == ([None], [])
    assert list(sockopt_table.servers(many, [None], _LITTLE, repr)) == [None]


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        (bytes(215), "a socket option of the guest is cut short"),
        (bytes(217), "the guest sent more of a socket option than was asked for"),
        (bytes(24) + b"\1" * 96 + _NONE, ""),
        (bytes(24) + b"\7" * 96 + _NONE, "a real server with flags 0x7070707"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_broken_answers(servers: bytes, reason: str, size: int) -> None:
    """Bytes that are missing, or more than was asked for, are refused; so is a server of no known kind."""
    guest = OptionsGuest({_GET_SERVERS: servers}, size)
    if not reason:
        assert [len(found or ()) for found in _servers(guest, [(_KEY, 1)], _LITTLE)] == [1]
        return
    with pytest.raises(ProtocolError) as refusal:
        _servers(guest, [(_KEY, 1)], _LITTLE)
    assert str(refusal.value) == reason


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 300))
def test_hostile_answers(servers: bytes, is_all: bool, size: int) -> None:
    """Whatever a guest sends is refused as broken, or gives the requested services."""
    guest = OptionsGuest({_GET_SERVERS: servers}, size)
    with suppress(ProtocolError):
        assert len(_servers(guest, [(_KEY, 1)], _ALL if is_all else _LITTLE)) == 1
