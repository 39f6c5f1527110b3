"""Blocks of netlink messages between host and guest: what arrives is what was sent, and damaged ones are refused."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.guest.netlink_block import MAX_BLOCK_BYTES, pack_netlink, unpack_netlink
from kata_runtime.guest.wire import FrameError
from kata_runtime.netlink.message import NLMSG_NOOP, iter_messages, pack_message

_HEADER = 7  # family, sequence and how
_TABLE = 4  # in how


def _block(sizes: list[int], values: int = 256) -> bytes:
    """Messages with payloads of these sizes, in which each byte has one of some values."""
    made = random.Random(len(sizes))
    return b"".join(
        pack_message(0x21, 1, number, bytes(made.randrange(values) for _ in range(size)))
        for number, size in enumerate(sizes, 1)
    )


def _sent(block: bytes, *, one_by_one: bool = False) -> tuple[int, bytes]:
    """How a block travels, and the messages that the guest's kernel does not skip."""
    payload = pack_netlink(16, 9, block, one_by_one=one_by_one)
    family, last, each, arrived = unpack_netlink(payload)
    assert (family, last, each) == (16, 9, one_by_one)
    kept = [message for message in iter_messages(bytes(arrived)) if message.type != NLMSG_NOOP]
    return payload[_HEADER - 1], b"".join(pack_message(*message[:3], message.payload) for message in kept)


@given(
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.one_of(st.binary(max_size=300), st.integers(0, MAX_BLOCK_BYTES).map(bytes)),
)
def test_round_trip(family: int, last: int, one_by_one: bool, block: bytes) -> None:
    """Bytes that are no messages arrive as they were sent, with what is to be done with them."""
    payload = pack_netlink(family, last, block, one_by_one=one_by_one)
    assert unpack_netlink(payload) == (family, last, one_by_one, block)


@given(
    st.lists(st.sampled_from([0, 1, 4, 20, 36, 100, 101, 124, 1000]), min_size=1, max_size=300),
    st.sampled_from([1, 2, 256]),
)
def test_messages_arrive(sizes: list[int], values: int) -> None:
    """Messages of any lengths and contents arrive in their order, those of one length also one by one."""
    block = _block(sizes, values)
    assert _sent(block)[1] == block
    assert _sent(block, one_by_one=True)[1] == block


def test_small_blocks_travel_as_they_are() -> None:
    """A small block is not compressed."""
    assert pack_netlink(16, 3, b"abc", one_by_one=False) == b"\0\x10\0\0\0\x03\0abc"


def test_services_and_servers_travel_as_a_table() -> None:
    """1,400 messages of two lengths that differ in few bytes take a hundredth of their size."""
    block = b"".join(pack_message(0x21, 1, number, bytes(84 if number % 20 == 1 else 120)) for number in range(1, 1401))
    how, arrived = _sent(block)
    assert (how & _TABLE, arrived) == (_TABLE, block)
    assert len(pack_netlink(16, 3, block, one_by_one=False)) < len(block) // 100


def test_dumps_are_never_padded() -> None:
    """Requests sent one by one are a table only if they have one length, since an empty message is not answered."""
    assert [_sent(_block(sizes), one_by_one=True)[0] & _TABLE for sizes in ([20] * 200, [20, 40] * 100)] == [_TABLE, 0]


def test_empty_messages_have_a_header() -> None:
    """Rows of lengths that differ by less than a header are wider than the longest message."""
    block = _block([100, 104] * 50, 1)
    how, arrived = _sent(block)
    assert (how & _TABLE, arrived) == (_TABLE, block)
    _, _, _, padded = unpack_netlink(pack_netlink(16, 9, block, one_by_one=False))
    assert len(padded) == 100 * (120 + 16)


@pytest.mark.parametrize("sizes", [list(range(0, 400, 4)), [4] * 600 + [4000]])
def test_other_blocks_are_compressed_alone(sizes: list[int]) -> None:
    """Messages of many lengths, and short ones beside a long one, are no table."""
    assert _sent(_block(sizes, 1))[0] & _TABLE == 0


_PLAIN = pack_netlink(16, 3, b"abc" * 40_000, one_by_one=False)


@pytest.mark.parametrize(
    "payload",
    [
        b"\0\x10\0\0\0\x03",
        _PLAIN[:6],
        _PLAIN[:9],
        _PLAIN[:-1],
        _PLAIN[:11] + b"y" + _PLAIN[12:],
        _PLAIN[:7] + b"\0\0\0\x01" + _PLAIN[11:],
        pack_netlink(16, 3, bytes(MAX_BLOCK_BYTES + 1), one_by_one=False),
    ],
)
def test_damaged_blocks(payload: bytes) -> None:
    """A block that is cut, damaged, of another size than it says, or too large, is refused."""
    with pytest.raises(FrameError):
        unpack_netlink(payload)


def _table(content: bytes) -> bytes:
    compressed = zlib.compress(content, 1, -15)
    return b"\0\x10\0\0\0\x03" + bytes([1 | _TABLE]) + struct.pack("!I", len(content)) + compressed


_TWO_ROWS = struct.pack("!IHHB", 2, 4, 1, 1) + b"abcd" + struct.pack("!H", 1) + b"xy"


def test_a_table() -> None:
    """Two rows that differ in one column."""
    assert unpack_netlink(_table(_TWO_ROWS))[3] == b"axcdaycd"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        _TWO_ROWS[:-1],
        _TWO_ROWS + b"z",
        _TWO_ROWS[:12],
        struct.pack("!IHHB", 1 << 31, 4, 0, 1) + b"abcd",
        struct.pack("!IHHB", 2, 4, 1, 1) + b"abcd" + struct.pack("!H", 4) + b"xy",
        struct.pack("!IHHB", 2, 4, 0, 2) + b"abcd" + b"efgh" + struct.pack("!II", 1, 2),
        struct.pack("!IHHB", 2, 4, 0, 2) + b"abcd" + b"efgh" + struct.pack("!I", 1 << 31),
        struct.pack("!IHHB", 2, 0, 0, 200),
    ],
)  # fmt: skip
def test_damaged_tables(content: bytes) -> None:
    """A table that is cut short, too long or too large, or has rows or columns outside, is refused."""
    with pytest.raises(FrameError):
        unpack_netlink(_table(content))
