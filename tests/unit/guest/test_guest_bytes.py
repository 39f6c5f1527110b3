"""Every decoder of what a guest sends: of any bytes it makes a value or a KataError, and nothing else."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.typed_addresses import mac

from kata_runtime.conntrack import cleanup
from kata_runtime.conntrack.cleanup import Filter
from kata_runtime.errors import GuestError, KataError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.ipvs import codec, listing, proc_table, saved_rules
from kata_runtime.ipvs.connections import parse_connections
from kata_runtime.ipvs.model import ServerKey, View
from kata_runtime.netlink import message as m
from kata_runtime.netlink.address import add_address, addresses_of
from kata_runtime.netlink.carried_config import portable_addresses
from kata_runtime.netlink.exchange import Request, attempt_all, call, dump_each
from kata_runtime.netlink.generic import unpack_family
from kata_runtime.netlink.link import links_of, set_link
from kata_runtime.netlink.neighbour import neighbours_of
from kata_runtime.netlink.route import add_route, routes_of, with_next_hops
from kata_runtime.netlink.transport import Family
from kata_runtime.network import queues
from kata_runtime.network.guest_nic import read_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kata_runtime.netlink.transport import Block

    Decoder = Callable[[bytes], object]

_DUMP = Request("list", 18, m.NLM_F_DUMP, b"")


class _Answering:
    """A kernel that answers these bytes to everything."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """One piece for each block."""
        for _ in blocks:
            yield self._data


def _messages(kind: int) -> Callable[[bytes], list[m.Message]]:
    return lambda data: [m.Message(kind, 0, 1, data)]


def _links(data: bytes) -> object:
    # What is read can be written again.
    return [set_link(link.index, mtu=link.mtu, up=True) for link in links_of(_messages(16)(data))]


def _addresses(data: bytes) -> object:
    rows = _messages(20)(data)
    found = addresses_of(rows)
    return read_states([], rows), [add_address(a.index, a.value) for a in found], [
        str(a.value) for a in found
    ]  # fmt: skip


def _routes(data: bytes) -> object:
    found = [route for family in (AF_INET, AF_INET6) for route in routes_of(_messages(24)(data), family)]
    again = [with_next_hops(route, route.next_hops) for route in found if route.next_hops]
    return [(str(route.key.network), add_route(route, 0)) for route in found + again]


def _service(data: bytes) -> object:
    spec, counted = codec.unpack_service(data)
    lines = [listing.service(spec, counted, view, exact=True) for view in View]
    return codec.pack_service(spec), saved_rules.rules(spec, []), spec.key.description, lines


def _server(data: bytes) -> object:
    server = codec.unpack_server(data, AF_INET)
    lines = [listing.server(server, view, exact=False) for view in View]
    return codec.pack_server(server.spec), saved_rules.server_words(server.spec), lines


def _daemon(data: bytes) -> object:
    daemon = codec.unpack_daemon(data)
    return codec.pack_daemon(daemon), listing.daemons([daemon])


def _conntrack(data: bytes) -> object:
    which = Filter(bytes([10, 0, 0, 1]), 6)
    return cleanup._matches(data, AF_INET, which), cleanup._deletion(data)


def _proc_table(data: bytes) -> object:
    spec, _ = codec.unpack_service(_SERVICE)
    ((_, servers),) = proc_table.servers([spec], [data], lambda server: server)
    return [(saved_rules.server_words(s.spec), listing.server(s, View.CONNECTIONS, exact=True)) for s in servers]


def _connections(data: bytes) -> object:
    return list(listing.connections(parse_connections([data]), with_engine=True))


def _frames(data: bytes) -> object:
    try:
        frames = [wire.unpack_body(raw) for raw in wire.Decoder().feed(data)]
        return [(wire.unpack_done(body), wire.unpack_status(body), wire.unpack_target(body)) for _, _, body in frames]
    except wire.FrameError as error:
        raise ProtocolError(str(error)) from None


def _generic(inner: bytes, kind: int) -> bytes:
    return m.pack_attribute(0, b"")[:4] + m.pack_nested(kind, inner)


_SERVICE_ATTRIBUTES = (
    m.pack_u16(1, AF_INET) + m.pack_u16(2, 6) + m.pack_attribute(3, bytes([10, 0, 0, 1]).ljust(16, b"\0"))
    + m.pack_attribute(4, b"\0\x50") + m.pack_text(6, "rr") + m.pack_attribute(7, bytes(8)) + m.pack_u32(8, 0)
    + m.pack_attribute(9, b"\xff" * 4) + m.pack_text(11, "sip")
)  # fmt: skip
_SERVICE = _generic(_SERVICE_ATTRIBUTES, 1)
_SERVER = _generic(
    codec.pack_server_key(ServerKey(AF_INET, bytes([10, 0, 0, 2]), 80))
    + b"".join(m.pack_u32(kind, 2) for kind in (3, 4, 5, 6, 7, 8, 9)) + m.pack_u8(13, 1),
    2,
)  # fmt: skip
_DAEMON = _generic(m.pack_u32(1, 1) + m.pack_text(2, "eth0") + m.pack_u32(3, 1) + m.pack_attribute(5, bytes(4)), 3)
_LINK = b"\0\0\1\0\2\0\0\0\0\0\0\0\0\0\0\0" + m.pack_text(3, "eth0") + m.pack_u32(4, 1500)
_ADDRESS = b"\x02\x18\x80\0\2\0\0\0" + m.pack_attribute(1, bytes([10, 0, 0, 1])) + m.pack_attribute(2, bytes(4))
_HOP = b"\x10\0\0\0\2\0\0\0" + m.pack_attribute(5, bytes([10, 0, 0, 1]))
_ROUTE = b"\x02\x18\0\0\xfe\3\0\1\0\0\0\0" + m.pack_attribute(1, bytes(4)) + m.pack_attribute(9, _HOP * 2)
_TUPLE = m.pack_nested(1, m.pack_attribute(2, bytes([10, 0, 0, 1]))) + m.pack_nested(2, m.pack_u8(1, 6))
_TRACKED = b"\x02\0\0\0" + m.pack_nested(1, _TUPLE) + m.pack_u32(12, 7)
_HEADING = b"IP Virtual Server\nProt\n  ->\n"
_TABLE = _HEADING + b"TCP  0A000001:0050 rr  \n  -> 0AC81276:1F90      Masq    19     3          17        \n"
_CONNECTION = b"Pro FromIP\nTCP 0A000001 8000 0A000002 0050 0A000003 0050 ESTABLISHED     899 sip id\n"
_END = m.pack_message(3, 2, 1, bytes(4))

_DECODERS: dict[str, tuple[Decoder, bytes]] = {
    "frames": (_frames, wire.pack_frame(wire.DONE, 1, wire.pack_done(2, "text"))),
    "answer": (lambda data: call(_Answering(data), Family.ROUTE, _DUMP), m.pack_message(16, 2, 1, b"row") + _END),
    "dumps": (
        lambda data: list(dump_each(_Answering(data), Family.ROUTE, [_DUMP], lambda _, row: row)),
        m.pack_message(16, 2, 1, b"row") + _END,
    ),
    "outcomes": (
        lambda data: attempt_all(_Answering(data), Family.ROUTE, [_DUMP]),
        m.pack_message(2, 0x200, 1, b"\xef\xff\xff\xff" + bytes(16) + m.pack_text(1, "no") + m.pack_u32(2, 8)),
    ),
    "family": (unpack_family, _generic(b"", 1) + m.pack_u16(1, 20) + m.pack_text(2, "IPVS") + m.pack_u32(3, 1)),
    "links": (_links, _LINK),
    "addresses": (_addresses, _ADDRESS),
    "portable addresses": (
        lambda data: portable_addresses(_messages(20)(data), {2: mac("02:42:20:6e:03:01")}),
        _ADDRESS,
    ),
    "neighbours": (lambda data: neighbours_of(_messages(28)(data)), b"\2\0\0\0\2\0\0\0\0\0\0\0" + _ADDRESS[8:16]),
    "routes": (_routes, _ROUTE),
    "service": (_service, _SERVICE),
    "server": (_server, _SERVER),
    "daemon": (_daemon, _DAEMON),
    "timeouts": (codec.unpack_timeouts, _generic(b"", 1) + b"".join(m.pack_u32(kind, 9) for kind in (4, 5, 6))),
    "info": (codec.unpack_info, _generic(b"", 9) + m.pack_u32(1, 0x10201) + m.pack_u32(2, 4096)),
    "tracked connection": (_conntrack, _TRACKED),
    "table": (_proc_table, _TABLE),
    "count": (lambda data: proc_table.count([data]), _TABLE),
    "connections": (_connections, _CONNECTION),
    "memory": (queues._available_mib, b"MemTotal: 1 kB\nMemAvailable:  2048 kB\n"),
}


@pytest.mark.parametrize(("decode", "usual"), _DECODERS.values(), ids=_DECODERS.keys())
def test_usual_bytes(decode: Decoder, usual: bytes) -> None:
    """The bytes that the next test damages are decoded."""
    decode(usual)


@pytest.mark.parametrize(("decode", "usual"), _DECODERS.values(), ids=_DECODERS.keys())
@given(data=st.data())
def test_value_or_error(decode: Decoder, usual: bytes, data: st.DataObject) -> None:
    """Any bytes, and real ones of which a part is replaced, doubled or lost, give a value or a KataError."""
    if data.draw(st.booleans()):
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(usual))] * 2)))
        middle = data.draw(st.one_of(st.binary(max_size=8), st.just(usual[first:last] * 2)))
        given_bytes = usual[:first] + middle + usual[last:]
    else:
        given_bytes = data.draw(st.binary(max_size=80))
    try:
        decode(given_bytes)
    except KataError:
        return


_LONG = b"9" * 5000


@pytest.mark.parametrize(
    ("decode", "data", "kind"),
    [
        (queues._available_mib, b"MemAvailable: " + _LONG + b" kB\n", GuestError),
        (_daemon, _DAEMON.replace(m.pack_attribute(5, bytes(4)), m.pack_attribute(5, bytes(5))), ProtocolError),
        (_daemon, _DAEMON.replace(b"eth0", b"\x1b[2J"), ProtocolError),
        (_service, _SERVICE.replace(m.pack_u16(2, 6), m.pack_u16(2, 0)), ProtocolError),
        (_service, _SERVICE.replace(m.pack_u16(2, 6), m.pack_u16(2, 7)), ProtocolError),
        (_service, _SERVICE.replace(b"sip\0", b"s -o"), ProtocolError),
        (_service, _SERVICE.replace(b"rr\0", b"\xff\0\0"), ProtocolError),
        (_server, _SERVER.replace(m.pack_u32(3, 2), m.pack_u32(3, 7)), ProtocolError),
        (_conntrack, _TRACKED[:4] + m.pack_u32(12, 7), ProtocolError),
        (_links, _LINK.replace(b"\2\0\0\0", b"\xff\xff\xff\xff", 1), ProtocolError),
        (_routes, _ROUTE.replace(b"\x10\0\0\0\2\0\0\0", b"\x10\0\0\0\xff\xff\xff\xff"), ProtocolError),
        (_routes, _ROUTE + m.pack_attribute(7, bytes(5)), ProtocolError),
        (_proc_table, _TABLE.replace(b"1F90", b"-050"), ProtocolError),
        (_proc_table, _TABLE.replace(b" 19 ", b" -1 "), ProtocolError),
        (_proc_table, _TABLE.replace(b" 19 ", b" " + _LONG + b" "), ProtocolError),
        (_connections, _CONNECTION.replace(b"8000", b"-800"), ProtocolError),
        (_connections, _CONNECTION.replace(b"899", _LONG), ProtocolError),
        (_connections, _CONNECTION.replace(b"899", b"9" * 30), ProtocolError),
        (_connections, _CONNECTION.replace(b"sip", b"\x1b[2J"), ProtocolError),
    ],
)
def test_what_a_review_found(decode: Decoder, data: bytes, kind: type[KataError]) -> None:
    """Numbers, names and lengths that ended as internal errors, or reached the terminal, are refused by name."""
    with pytest.raises(kind):
        decode(data)
