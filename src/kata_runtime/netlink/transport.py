"""The interface between netlink requests and the transports that carry them to a kernel."""

from __future__ import annotations

from kata_runtime.fast_enum import IntEnum
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Protocol

    class Transport(Protocol):
        """Carries netlink messages to a kernel."""

        def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
            """Send ``blocks`` pipelined; yield the kernel's answers, in order.

            It comes in pieces of whole messages. The answer to a block ends with the NLMSG_ERROR or NLMSG_DONE of its
            last sequence. A message of the block without NLM_F_ACK is answered only when it fails.
            """
            ...


class Family(IntEnum):
    """include/uapi/linux/netlink.h, NETLINK_*: the families that this package uses."""

    ROUTE = 0
    NETFILTER = 12
    UEVENT = 15  # notifications of devices only
    GENERIC = 16


class Block(NamedTuple):
    """Messages that are sent together; the last one, ``last_sequence``, carries NLM_F_ACK or NLM_F_DUMP.

    ``one_by_one``: each message is a dump, sent to the kernel when the previous one has ended. ``repeatable``: it only
    reads, so that it may be carried out twice; the same holds for dumps.
    """

    data: bytes
    last_sequence: int
    one_by_one: bool = False
    repeatable: bool = False
