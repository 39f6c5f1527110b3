"""Requests of ethtool's netlink family, byte by byte."""

from __future__ import annotations

from kata_runtime.netlink.ethtool import set_channels
from kata_runtime.netlink.generic import GenericFamily


def test_set_channels() -> None:
    """Command, nested device index and count are where the kernel's ethtool_netlink.h puts them."""
    request = set_channels(GenericFamily("ethtool", 0x15, 1), 7, 5)
    assert (request.operation, request.type, request.flags) == ("use 5 queue pairs of interface 7", 0x15, 0)
    assert request.payload == bytes.fromhex(
        "12010000"  # ETHTOOL_MSG_CHANNELS_SET, version 1
        "0c0001800800010007000000"  # ETHTOOL_A_CHANNELS_HEADER, nested: ETHTOOL_A_HEADER_DEV_INDEX 7
        "0800090005000000"  # ETHTOOL_A_CHANNELS_COMBINED_COUNT 5
    )
