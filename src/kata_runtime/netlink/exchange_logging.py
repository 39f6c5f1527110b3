"""Logs a netlink exchange: bytes sent and received, and the first refusal of the kernel."""

from __future__ import annotations

from kata_runtime import operation_log
from kata_runtime.errors import ProtocolError
from kata_runtime.netlink.message import NLMSG_DONE, NLMSG_ERROR, iter_messages, unpack_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kata_runtime.netlink.transport import Block, Family

    Exchange = Callable[[Family, Iterable[Block]], Iterator[bytes]]


def recorded(kernel: str, exchange: Exchange, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
    """``exchange(family, blocks)`` with the ``kernel`` of host or guest, logged if there is a log."""
    return _recorded(kernel, exchange, family, blocks) if operation_log.is_wanted() else exchange(family, blocks)


def _recorded(kernel: str, exchange: Exchange, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
    count = {"blocks": 0, "messages": 0, "bytes_sent": 0, "bytes_received": 0, "errno": 0}
    # The seconds include what the caller does with an answer before it takes the next.
    with operation_log.measured("netlink", kernel=kernel, family=family.name) as step:
        try:
            for answer in exchange(family, _counted(blocks, count)):
                count["bytes_received"] += len(answer)
                count["errno"] = count["errno"] or _first_errno(answer)
                yield answer
        finally:
            step.note(**count)


def _counted(blocks: Iterable[Block], count: dict[str, int]) -> Iterator[Block]:
    for block in blocks:
        count["blocks"] += 1
        count["messages"] += sum(1 for _ in iter_messages(block.data))
        count["bytes_sent"] += len(block.data)
        yield block


def _first_errno(answer: bytes) -> int:
    """Zero also for bytes that are no messages; decoding them raises the error."""
    try:
        outcomes = (unpack_outcome(item) for item in iter_messages(answer) if item.type in (NLMSG_ERROR, NLMSG_DONE))
        return next((outcome.errno for outcome in outcomes if outcome.errno), 0)
    except ProtocolError:
        return 0
