"""Queue pairs in the guest: how many are used, and whether its memory holds them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from kata_runtime.errors import GuestError, LimitError
from kata_runtime.netlink.message import pack_message
from kata_runtime.network.queues import require_memory, use_queues

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kata_runtime.netlink.transport import Block, Family

_ACKNOWLEDGED = struct.pack("=iIHHII", 0, 16, 0, 0, 0, 0)
# CTRL_CMD_NEWFAMILY: name "ethtool", identity 0x15, version 1.
_FAMILY = bytes.fromhex("01020000 0c000200 657468746f6f6c00 06000100 15000000 08000300 01000000")


class _Kernel:
    """Knows the family ethtool and accepts everything; keeps what it was sent after the headers of the messages."""

    def __init__(self) -> None:
        self.received: list[str] = []

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        for block in blocks:
            self.received.append(f"{int(family)} {block.data[4:6].hex()} {block.data[16:].hex()}")
            answer = pack_message(2, 0, block.last_sequence, _ACKNOWLEDGED)
            if len(self.received) == 1:
                answer = pack_message(0x10, 0, block.last_sequence, _FAMILY) + answer
            yield answer


@pytest.mark.parametrize(("queues", "vcpus", "used"), [(2, 2, 2), (5, 2, 2), (5, 1, 1), (2, 8, 2)])
def test_no_more_queues_than_processors(queues: int, vcpus: int, used: int) -> None:
    """The family is looked up, and gets the smaller of both numbers for this interface."""
    kernel = _Kernel()
    assert use_queues(kernel, 7, queues, vcpus) == used
    assert kernel.received == [
        "16 1000 03010000" + "0c000200657468746f6f6c00",
        "16 1500 12010000" + "0c0001800800010007000000" + f"08000900{used:02x}000000",
    ]


class _Completed(NamedTuple):
    stdout: bytes


class _Guest:
    """Prints ``meminfo``."""

    def __init__(self, meminfo: bytes) -> None:
        self.meminfo = meminfo

    def run(self, argv: list[str]) -> _Completed:
        assert argv == ["cat", "/proc/meminfo"]
        return _Completed(self.meminfo)


def _check(meminfo: bytes, queues: int) -> None:
    guest: Any = _Guest(meminfo)
    require_memory(guest, queues)


def test_memory_for_queues() -> None:
    """Half a MiB for each pair and 32 MiB to spare must be available, one KiB less is refused."""
    _check(b"MemTotal: 1 kB\nMemAvailable:   163840 kB\n", 256)
    with pytest.raises(LimitError) as caught:
        _check(b"MemFree: 999999 kB\nMemAvailable:   163839 kB\n", 256)
    assert str(caught.value) == (
        "256 queue pairs need 160 MiB of the container's memory, and 159 MiB are left; "
        "ask for fewer, or start it with more default_memory"
    )


@pytest.mark.parametrize("meminfo", [b"", b"MemAvailable:\n", b"MemAvailable: lots kB\n", b"MemAvailable: -1 kB\n"])
def test_a_guest_that_does_not_tell(meminfo: bytes) -> None:
    """Anything but a number is an error of the guest."""
    with pytest.raises(GuestError, match=r"^the container's kernel does not report how much memory is left$"):
        _check(meminfo, 2)
