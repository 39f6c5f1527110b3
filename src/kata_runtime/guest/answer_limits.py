"""Limits, in seconds and bytes, on what a command accepts from a guest. Nothing that a guest sends raises them.

Buffers are bounded where something is kept. An answer of many pieces is not kept; its limit makes it end. The objects
decoded from it are counted where they are made (``netlink.exchange``, ``ipvs``).
"""

from __future__ import annotations

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple

# Counted for each frame besides its payload: the overhead of its objects.
FRAME_BYTES = 64
_MIB = 1 << 20


class Limits(NamedTuple):
    """The defaults are those of every command.

    A server takes 356 bytes of an answer: 200,000 of them, ten times the usual limit of rules, take 68 MiB.
    """

    connect_seconds: float = 10.0
    # A sysctl, a subscription: one small answer.
    request_seconds: float = 10.0
    # A block of netlink messages, or a file: from its request, or the end of the answer before, to its end.
    answer_seconds: float = 60.0
    # All blocks of an exchange together; 200,000 rules take seven seconds.
    exchange_seconds: float = 300.0
    # An exchange or a file; the channel keeps one frame of it at a time.
    answer_bytes: int = 96 * _MIB
    # Of all subscriptions together, until they are taken: a change of an interface has 1.4 KB.
    notifications: int = 10_000
    notification_bytes: int = 16 * _MIB
    # Each of the two outputs of a command that the runtime itself runs, such as modprobe.
    output_bytes: int = _MIB


DEFAULT = Limits()


class Budget:
    """How many bytes of an answer may still arrive; each frame counts its payload and an overhead."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def take(self, payload: bytes) -> None:
        """Count a frame.

        :raise ProtocolError: the answer is too large.
        """
        self._left -= len(payload) + FRAME_BYTES
        if self._left < 0:
            raise ProtocolError(f"the guest answered with more than {self._size >> 20} MiB")
