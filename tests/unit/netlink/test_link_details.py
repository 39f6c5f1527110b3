"""Counters of interfaces: exact bytes, and what breaks the format."""

from __future__ import annotations

import struct

import pytest

from kata_runtime.errors import ProtocolError
from kata_runtime.netlink.link_details import Counters, dump_detailed_links, unpack_detailed_link

_HEAD = bytes.fromhex("00 00 0100 05000000 43100100 00000000")
_NAME = bytes.fromhex("0900 0300 6574683100 000000")
_PEER = bytes.fromhex("0800 0500 09000000")
_STATISTICS = bytes.fromhex("c400 1700") + struct.pack("=24Q", *range(1, 25))


def test_request_bytes() -> None:
    """The dump of all interfaces asks for statistics: it has no IFLA_EXT_MASK."""
    assert dump_detailed_links().payload == bytes(16)


def test_counters_and_peer() -> None:
    """The first eight counters of struct rtnl_link_stats64 and IFLA_LINK are read from a message of ours."""
    found = unpack_detailed_link(_HEAD + _NAME + _PEER + _STATISTICS)
    assert (found.link.name, found.link.index, found.counters, found.peer) == (
        "eth1",
        5,
        Counters(1, 2, 3, 4, 5, 6, 7, 8),
        9,
    )


def test_without_counters() -> None:
    """An interface without statistics has counted nothing."""
    assert unpack_detailed_link(_HEAD + _NAME)[1:] == (Counters(), 0)


@pytest.mark.parametrize("size", [0, 8, 63])
def test_short_statistics(size: int) -> None:
    """Statistics that end too early are refused with their size."""
    attribute = struct.pack("=HH", size + 4, 23) + bytes(size) + bytes(-size % 4)
    with pytest.raises(ProtocolError, match=f"^interface statistics of {size} bytes$"):
        unpack_detailed_link(_HEAD + attribute)
