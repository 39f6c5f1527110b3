"""Settings of network devices: ETHTOOL_MSG_* (Documentation/networking/ethtool-netlink.rst of the kernel)."""

from __future__ import annotations

from kata_runtime.netlink.exchange import Request
from kata_runtime.netlink.generic import GenericFamily, pack_generic
from kata_runtime.netlink.message import pack_nested, pack_u32

# include/uapi/linux/ethtool_netlink.h
FAMILY_NAME = "ethtool"
_MSG_CHANNELS_SET = 18
_HEADER_DEV_INDEX = 1
_CHANNELS_HEADER = 1
_CHANNELS_COMBINED_COUNT = 9
_VERSION = 1


def set_channels(family: GenericFamily, index: int, combined: int) -> Request:
    """Have interface ``index`` use ``combined`` pairs of receive and transmit queues; EINVAL: it has fewer."""
    device = pack_nested(_CHANNELS_HEADER, pack_u32(_HEADER_DEV_INDEX, index))
    payload = pack_generic(_MSG_CHANNELS_SET, _VERSION, device + pack_u32(_CHANNELS_COMBINED_COUNT, combined))
    return Request(f"use {combined} queue pairs of interface {index}", family.id, 0, payload)
