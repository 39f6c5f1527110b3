"""The netlink codec: exact bytes written by hand from the kernel's structures, round trips, hostile input."""

from __future__ import annotations

import errno
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.typed_addresses import interface_address, ip, mac, network

from kata_runtime.address_types import InterfaceAddress, IpAddress
from kata_runtime.errors import InputError, KernelError, ProtocolError
from kata_runtime.netlink import message as m
from kata_runtime.netlink.address import Address, add_address, unpack_address
from kata_runtime.netlink.exchange import Request, attempt_all, call, call_each, dump_each
from kata_runtime.netlink.generic import get_family, pack_generic, unpack_family, unpack_generic
from kata_runtime.netlink.link import Link, dump_links, get_link, set_link, unpack_link
from kata_runtime.netlink.route import NextHop, new_route, unpack_route, with_next_hops
from kata_runtime.netlink.transport import Block, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXT_MASK = bytes.fromhex("0800 1d00 08000000")
HEADER = 16


def test_message_bytes() -> None:
    """struct nlmsghdr: length, type, flags, sequence, port; then the payload, padded to four."""
    assert m.pack_message(0x12, 0x305, 7, b"abcde") == bytes.fromhex(
        "15000000 1200 0503 07000000 00000000 6162636465 000000"
    )


def test_attribute_bytes() -> None:
    """struct nlattr counts its header, not its padding; nested ones carry NLA_F_NESTED."""
    assert m.pack_text(3, "lo") == bytes.fromhex("0700 0300 6c6f00 00")
    assert m.pack_nested(18, m.pack_u8(1, 2), m.pack_u16(2, 3)) == bytes.fromhex(
        "1400 1280 0500 0100 02000000 0600 0200 03000000"
    )


def test_link_request_bytes() -> None:
    """struct ifinfomsg and the attributes of a rename with MAC, MTU and IFF_UP."""
    assert set_link(5, name="eth-test", mac=mac("02:42:20:6e:03:01"), mtu=1500, up=True).payload == bytes.fromhex(
        "00 00 0000 05000000 01000000 01000000"
        "0a00 0100 0242206e0301 0000"
        "0800 0400 dc050000"
        "0d00 0300 6574682d7465737400 000000"
    )
    assert get_link("lo").payload == bytes(16) + bytes.fromhex("0700 0300 6c6f00 00") + EXT_MASK
    assert get_link(3).payload == bytes.fromhex("00000000 03000000 00000000 00000000") + EXT_MASK
    assert dump_links().payload == bytes(16) + EXT_MASK
    assert set_link(5, up=False).payload == bytes.fromhex("00000000 05000000 00000000 01000000")


def test_address_request_bytes() -> None:
    """struct ifaddrmsg: IPv4 as iproute2 sends it, IPv6 with IFA_F_NODAD, loopback with host scope."""
    assert add_address(5, interface_address("172.16.0.3/16")) == Request(
        "add address 172.16.0.3/16 to interface 5",
        20,
        0x600,
        bytes.fromhex("02 10 00 00 05000000 0800 0200 ac100003 0800 0100 ac100003"),
    )
    six = ip("fd00::3")
    assert add_address(5, InterfaceAddress(six, 64)).payload == bytes.fromhex(
        "0a 40 02 00 05000000"
    ) + m.pack_attribute(2, six) + m.pack_attribute(1, six)


def test_route_bytes() -> None:
    """struct rtmsg and attributes of an IPv4 default route and of an on-link IPv6 one."""
    assert new_route(network("default"), index=2, gateway=ip("172.16.0.1")).payload == bytes.fromhex(
        "02 00 00 00 fe 03 00 01 00000000 0800 0f00 fe000000 0800 0500 ac100001 0800 0400 02000000"
    )
    assert new_route(network("fd77::/64"), index=2).payload == bytes.fromhex(
        "0a 40 00 00 fe 03 00 01 00000000 0800 0f00 fe000000"
        "1400 0100 fd770000000000000000000000000000 0800 0600 00040000 0800 0400 02000000"
    )
    assert new_route(network("10.0.0.0/8"), index=2).scope == 253


def test_multipath_round_trip() -> None:
    """struct rtnexthop: weights, flags and gateways survive; state flags (RTNH_F_DEAD, LINKDOWN) do not."""
    hops = bytes.fromhex("1000 15 02 02000000 0800 0500 ac100001 1000 00 00 03000000 0800 0500 ac110001")
    route = unpack_route(
        bytes.fromhex("02 08 00 00 fe 03 00 01 11000000")
        + m.pack_attribute(1, bytes([50, 0, 0, 0]))
        + m.pack_attribute(9, hops)
        + m.pack_attribute(12, bytes(28))
    )
    gateway = bytes.fromhex("0800 0500")
    assert route.next_hops == (
        NextHop(ip("172.16.0.1"), 2, 3, 4, gateway + bytes([172, 16, 0, 1])),
        NextHop(ip("172.17.0.1"), 3, 1, 0, gateway + bytes([172, 17, 0, 1])),
    )
    assert route.payload == bytes.fromhex("02 08 00 00 fe 03 00 01 00000000") + m.pack_attribute(
        1, bytes([50, 0, 0, 0])
    ) + m.pack_attribute(9, hops.replace(b"\x10\x00\x15", b"\x10\x00\x04"))
    assert unpack_route(route.payload) == route
    assert with_next_hops(route, route.next_hops) == route
    single = with_next_hops(route, route.next_hops[:1])
    assert (single.flags, single.next_hops) == (4, (route.next_hops[0]._replace(weight=1),))


def test_expiry_is_kept_apart() -> None:
    """The rest of an IPv6 route's life (rta_expires, 1/100 s) becomes RTA_EXPIRES when it is put back."""
    cacheinfo = m.pack_attribute(12, bytes(8) + (12345).to_bytes(4, "little") + bytes(20))
    route = unpack_route(bytes.fromhex("0a 00 00 00 fe 09 00 01 00000000") + cacheinfo)
    assert (route.expires, route.payload[12:], route.full_payload[12:]) == (
        123,
        b"",
        bytes.fromhex("08001700 7b000000"),
    )


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    """Packed attributes are read back whole, in order."""
    assert list(m.iter_attributes(b"".join(m.pack_attribute(*pair) for pair in pairs))) == pairs


@given(
    st.lists(
        st.builds(
            m.Message,
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF),
            st.integers(0, 2**32 - 1),
            st.binary(max_size=40),
        )
    )
)
def test_messages_round_trip(messages: list[m.Message]) -> None:
    """Packed messages are read back whole, in order."""
    assert list(m.iter_messages(b"".join(m.pack_message(*message) for message in messages))) == messages


@given(
    st.integers(1, 2**31 - 1),
    st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    st.integers(0, 32),
)
def test_addresses_round_trip(index: int, packed: bytes, length: int) -> None:
    """What is asked for reads back as the same address."""
    value = InterfaceAddress(IpAddress(packed), length)
    read = unpack_address(add_address(index, value).payload)
    scope = 254 if len(packed) == 4 and packed[0] == 127 else 0
    assert read == Address(index, value, 0 if len(packed) == 4 else 2, scope, "")
    assert read.family == (AF_INET if len(packed) == 4 else AF_INET6)


def test_link_round_trip() -> None:
    """A TAP as RTM_NEWLINK describes it."""
    tun = m.pack_nested(2, m.pack_u8(3, 2), m.pack_u8(6, 1), m.pack_u8(7, 1))
    info = m.pack_nested(18, m.pack_text(1, "tun"), tun)
    payload = set_link(4, name="tap0", mac=mac("02:00:00:00:00:01"), mtu=1400, up=True).payload + info
    assert unpack_link(payload) == Link(
        index=4,
        name="tap0",
        mac=mac("02:00:00:00:00:01"),
        mtu=1400,
        flags=1,
        operstate=0,
        carrier=False,
        master=0,
        kind="tun",
        tun_type=2,
        tun_multi_queue=True,
        tun_persistent=True,
        parent="",
        hardware=0,
        lower=0,
    )


@given(st.binary(max_size=200))
def test_hostile_bytes_are_a_value_or_protocol_error(data: bytes) -> None:
    """No decoder ends in anything but a value or ProtocolError."""

    def outcomes(raw: bytes) -> list[m.Outcome]:
        return [m.unpack_outcome(m.Message(kind, flags, 1, raw)) for kind in (2, 3) for flags in (0, 0x200, 0x300)]

    decoders = (
        lambda raw: list(m.iter_messages(raw)),
        m.parse_attributes,
        outcomes,
        unpack_link,
        unpack_address,
        unpack_route,
        lambda raw: unpack_route(b"\x02\x08" + bytes(10) + raw),
        lambda raw: unpack_route(b"\x0a\x08" + bytes(10) + m.pack_attribute(9, raw)),
        lambda raw: unpack_link(bytes(16) + raw),
        unpack_family,
        unpack_generic,
    )
    for decode in decoders:
        try:
            decode(data)
        except ProtocolError:
            continue


def test_every_cut_of_a_message_is_refused() -> None:
    """A message cut at any offset is an error, except behind its last byte, where only padding is missing."""
    whole = m.pack_message(16, 0, 1, set_link(1, name="lo", mtu=9).payload)
    for length in range(1, len(whole)):
        with pytest.raises(ProtocolError):
            list(m.iter_messages(whole[:length]))


class Scripted:
    """A kernel that expects exactly these blocks and answers with these bytes."""

    def __init__(self, *script: tuple[bytes, bytes]) -> None:
        self.script = list(script)

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Compare and answer."""
        assert family is Family.ROUTE
        for block in blocks:
            expected, answer = self.script.pop(0)
            assert block.data == expected
            yield answer


def _error(sequence: int, number: int, extack: str = "") -> bytes:
    payload = (-number).to_bytes(4, "little", signed=True) + bytes(16)
    flags = 0x100
    if extack:
        flags |= 0x200
        payload += m.pack_text(1, extack) + m.pack_u32(2, 36)
    return m.pack_message(2, flags, sequence, payload)


SET = Request("set it", 16, 0, b"1234")
LIST = Request("list them", 18, 0x300, b"5678")


def test_call_asks_for_an_acknowledgement_and_raises_the_kernels_sentence() -> None:
    """NLM_F_REQUEST and NLM_F_ACK are set; errno and extack reach the error, without control characters."""
    sent = m.pack_message(16, 5, 1, b"1234")
    assert call(Scripted((sent, _error(1, 0))), Family.ROUTE, SET) == []
    with pytest.raises(KernelError) as caught:
        call(Scripted((sent, _error(1, errno.EEXIST, "no\x1b[2J\nway"))), Family.ROUTE, SET)
    assert str(caught.value) == "set it: File exists (no?[2J?way)"
    assert m.unpack_outcome(next(m.iter_messages(_error(1, 17, "x")))) == m.Outcome(17, "x", 36)


def test_error_that_quotes_its_request() -> None:
    """Without NLM_F_CAPPED the attributes follow the quoted request."""
    quoted = m.pack_message(16, 5, 1, b"123456")
    payload = (-22).to_bytes(4, "little", signed=True) + quoted + m.pack_text(1, "why")
    assert m.unpack_outcome(m.Message(2, 0x200, 1, payload)) == m.Outcome(22, "why")


def test_an_interrupted_dump_is_read_again() -> None:
    """NLM_F_DUMP_INTR makes only that dump go out once more; the first answer of the other request stays."""
    dump = m.pack_message(18, 0x301, 2, b"5678")
    done = m.pack_message(3, 2, 2, bytes(4))
    kernel = Scripted(
        (m.pack_message(16, 5, 1, b"1234"), _error(1, 0)),
        (dump, m.pack_message(16, 0x12, 2, b"half") + done),
        (dump, m.pack_message(16, 2, 2, b"full") + done),
    )
    answers = call_each(kernel, Family.ROUTE, [SET, LIST])
    assert answers == [[], [m.Message(16, 2, 2, b"full")]]
    assert kernel.script == []


@pytest.mark.parametrize("answer", [b"", _error(2, 0), m.pack_message(16, 2, 1, b""), m.pack_message(4, 0, 1, b"")])
def test_answers_out_of_turn(answer: bytes) -> None:
    """No end, another sequence, lost messages: ProtocolError."""
    with pytest.raises(ProtocolError):
        call(Scripted((m.pack_message(16, 5, 1, b"1234"), answer)), Family.ROUTE, SET)


def test_many_requests_share_a_block() -> None:
    """Only the last message asks for its acknowledgement; failures are reported by index."""
    sent = m.pack_message(16, 1, 1, b"1234")
    sent += m.pack_message(16, 1, 2, b"1234") + m.pack_message(16, 5, 3, b"1234")
    answer = _error(2, errno.ENODEV) + _error(3, 0)
    failures = attempt_all(Scripted((sent, answer)), Family.ROUTE, [SET] * 3)
    assert [(index, str(error)) for index, error in failures.items()] == [(1, "set it: No such device")]
    assert attempt_all(Scripted(), Family.ROUTE, []) == {}


def test_nothing_follows_a_failure() -> None:
    """With until_failure, the block behind the one that failed is not sent."""
    large = Request("set it", 16, 0, bytes(200_000))
    blocks = [m.pack_message(16, 5, number, large.payload) for number in (1, 2, 3)]
    answers = (_error(1, 0), _error(2, errno.EEXIST))
    failures = attempt_all(Scripted(*zip(blocks, answers, strict=False)), Family.ROUTE, [large] * 3, until_failure=True)
    assert [(index, error.errno) for index, error in failures.items()] == [(1, errno.EEXIST)]


def _done(sequence: int, number: int = 0) -> bytes:
    return m.pack_message(3, 2, sequence, (-number).to_bytes(4, "little", signed=True))


def _row(index: int, payload: bytes) -> tuple[int, bytes]:
    return index, payload


def test_small_dumps_share_a_block() -> None:
    """Rows come dump by dump; one during which the table changed is asked for again at the end."""
    asked = b"".join(m.pack_message(18, 0x301, number, b"5678") for number in (1, 2, 3))
    answer = m.pack_message(16, 2, 1, b"a") + m.pack_message(16, 2, 1, b"b") + _done(1)
    answer += m.pack_message(16, 0x12, 2, b"half") + _done(2) + _done(3)
    kernel = Scripted(
        (asked, answer), (m.pack_message(18, 0x301, 1, b"5678"), m.pack_message(16, 2, 1, b"whole") + _done(1))
    )
    rows = list(dump_each(kernel, Family.ROUTE, [LIST] * 3, _row))
    assert rows == [(0, [(0, b"a"), (0, b"b")]), (2, []), (1, [(1, b"whole")])]
    assert list(dump_each(Scripted(), Family.ROUTE, [], _row)) == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", ProtocolError),
        (m.pack_message(16, 2, 1, b"row"), ProtocolError),
        (_done(2), ProtocolError),
        (_done(1, errno.EPERM), KernelError),
        (_error(1, errno.EPERM), KernelError),
    ],
)
def test_dumps_that_fail(answer: bytes, kind: type[Exception]) -> None:
    """No end, another sequence, a refusal: never taken for an empty table."""
    with pytest.raises(kind):
        list(dump_each(Scripted((m.pack_message(18, 0x301, 1, b"5678"), answer)), Family.ROUTE, [LIST], _row))


@given(st.lists(st.integers(0, 160_000), max_size=12))
def test_blocks_stay_below_their_limit(sizes: list[int]) -> None:
    """Whatever the sizes, every request goes out once, in order, and no block of several exceeds 384 KiB."""
    seen: list[tuple[int, int]] = []

    class Kernel:
        def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
            for block in blocks:
                messages = list(m.iter_messages(block.data))
                assert len(messages) == 1 or len(block.data) <= 384 * 1024 + 3 + HEADER
                assert [bool(message.flags & 4) for message in messages] == [False] * (len(messages) - 1) + [True]
                assert block.last_sequence == messages[-1].sequence
                seen.extend((message.sequence, len(message.payload)) for message in messages)
                yield _error(block.last_sequence, 0)

    attempt_all(Kernel(), Family.ROUTE, (Request("x", 16, 0, bytes(size)) for size in sizes))
    assert seen == list(enumerate(sizes, 1))


def test_generic_bytes() -> None:
    """CTRL_CMD_GETFAMILY by name, and its answer."""
    assert get_family("IPVS") == Request(
        "look up netlink family 'IPVS'", 0x10, 0, bytes.fromhex("03 01 0000 0900 0200 4950565300 000000")
    )
    found = unpack_family(pack_generic(1, 2, m.pack_text(2, "IPVS") + m.pack_u16(1, 37) + m.pack_u32(3, 1)))
    assert found == ("IPVS", 37, 1)


@pytest.mark.parametrize("name", ["", "a" * 16, "a\0b"])
def test_impossible_names_are_refused_before_the_kernel(name: str) -> None:
    """IFNAMSIZ holds 15 bytes."""
    with pytest.raises(InputError):
        get_link(name)
