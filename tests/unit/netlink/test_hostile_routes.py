"""Routes that no kernel has but a guest can report."""

from __future__ import annotations

import struct

import pytest

from kata_runtime.errors import ProtocolError
from kata_runtime.netlink.message import pack_attribute, pack_nested, pack_u32
from kata_runtime.netlink.route import unpack_route

_HEADER = bytes([2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0])
_RTA_OIF, _RTA_MULTIPATH = 4, 9


@pytest.mark.parametrize(
    ("attribute", "shown"),
    [
        (pack_u32(_RTA_OIF, 1 << 31), 1 << 31),
        (pack_nested(_RTA_MULTIPATH, struct.pack("=HBBi", 8, 0, 0, -3)), -3),
        (pack_attribute(_RTA_MULTIPATH, struct.pack("=HBBi", 8, 0, 0, -(1 << 31))), -(1 << 31)),
    ],
)
def test_interface_that_cannot_be(attribute: bytes, shown: int) -> None:
    """An index that is no positive int, and could not be sent back to delete a next hop, is refused."""
    with pytest.raises(ProtocolError) as caught:
        unpack_route(_HEADER + attribute)
    assert str(caught.value) == f"a route over interface {shown}"
