"""Requests and their answers, over any transport.

Sequence numbers start at 1 in every exchange: a transport never mixes the answers of two exchanges.
"""

from __future__ import annotations

import errno
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import KernelError, ProtocolError
from kata_runtime.netlink.message import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    NLMSG_OVERRUN,
    Message,
    iter_messages,
    pack_message,
    unpack_outcome,
)
from kata_runtime.netlink.transport import Block, Family, Transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A block is one send(): less than a netlink socket takes at once (net.core.wmem_default is 208 KiB; netlink_sendmsg
# refuses more with EMSGSIZE), and as many messages as can all fail without overflowing the 4 MiB receive
# buffer (an error costs about 1 KiB of it).
BLOCK_BYTES = 128 * 1024
BLOCK_MESSAGES = 2000
# Their answers are read as a whole: those of services with 20 servers have 450 KiB.
_BLOCK_DUMPS = 64

# A dump during which the table changed says so (NLM_F_DUMP_INTR) and may lack rows: it is read again.
_DUMP_ATTEMPTS = 8


class Request(NamedTuple):
    """One request; ``operation`` says in words what it does, for ``KernelError``.

    ``flags`` need not hold NLM_F_REQUEST and NLM_F_ACK.
    """

    operation: str
    type: int
    flags: int
    payload: bytes

    @property
    def is_dump(self) -> bool:
        """Whether the answer ends in NLMSG_DONE instead of NLMSG_ERROR."""
        return self.flags & NLM_F_DUMP == NLM_F_DUMP


class _Answer(NamedTuple):
    messages: list[Message]
    interrupted: bool


def call(transport: Transport, family: Family, request: Request) -> list[Message]:
    """Send one request; the messages that the kernel answered before its acknowledgement.

    :raise KernelError: the kernel refused, or a dump kept being interrupted (EINTR).
    :raise ProtocolError: the answer breaks the format.
    """
    return call_each(transport, family, [request])[0]


def dump(transport: Transport, family: Family, request: Request) -> list[Message]:
    """``call`` for a request that lists a table: NLM_F_DUMP is set for it."""
    return call(transport, family, request._replace(flags=request.flags | NLM_F_DUMP))


def call_each(transport: Transport, family: Family, requests: Sequence[Request]) -> list[list[Message]]:
    """Send several requests, dumps too, in one round trip; the messages answered to each, in order.

    All are sent, whatever becomes of the first.

    :raise KernelError: of the first that was refused.
    :raise ProtocolError: an answer breaks the format.
    """
    answers: list[list[Message]] = [[] for _ in requests]
    waiting = list(range(len(requests)))
    for _ in range(_DUMP_ATTEMPTS):
        received = list(transport.exchange(family, (_block(requests[i], i + 1) for i in waiting)))
        if len(received) != len(waiting):
            raise ProtocolError(f"{len(received)} netlink answers to {len(waiting)} requests")
        again = []
        for index, data in zip(waiting, received, strict=True):
            answer = _read_answer(requests[index], index + 1, data)
            answers[index] = answer.messages
            if answer.interrupted:
                again.append(index)
        if not again:
            return answers
        waiting = again
    raise KernelError(requests[waiting[0]].operation, errno.EINTR, hint="the table kept changing, try again")


def dump_each(transport: Transport, family: Family, requests: Sequence[Request]) -> Iterator[tuple[int, list[Message]]]:
    """The rows of very many small dumps, with the index of their request, as they come.

    In order, but for those during which the table changed: these are asked for again at the end.

    :raise KernelError: of the first that was refused.
    :raise ProtocolError: an answer breaks the format.
    """
    again: list[int] = []
    starts = range(0, len(requests), _BLOCK_DUMPS)
    blocks = (_dump_block(requests[start : start + _BLOCK_DUMPS], start) for start in starts)
    for start, data in zip(starts, transport.exchange(family, blocks), strict=True):
        wanted = range(start, min(start + _BLOCK_DUMPS, len(requests)))
        for index, rows in zip(wanted, _sort_dumps(requests, wanted, data), strict=True):
            if rows is None:
                again.append(index)
            else:
                yield index, rows
    yield from zip(again, call_each(transport, family, [requests[i] for i in again]), strict=True)


def _sort_dumps(requests: Sequence[Request], wanted: range, data: bytes) -> Iterator[list[Message] | None]:
    """The rows of each dump of a block, None for one that was interrupted."""
    messages = iter_messages(data)
    for index in wanted:
        rows: list[Message] | None = []
        for message in messages:
            if message.sequence != index + 1:
                raise ProtocolError(f"a netlink answer to message {message.sequence} instead of {index + 1}")
            if message.flags & NLM_F_DUMP_INTR:
                rows = None
            if message.type in (NLMSG_ERROR, NLMSG_DONE):
                outcome = unpack_outcome(message)
                if outcome.errno == errno.EINTR:
                    rows = None
                elif outcome.errno:
                    raise KernelError(requests[index].operation, outcome.errno, outcome.extack)
                break
            if rows is not None:
                rows.append(message)
        else:
            raise ProtocolError("a netlink dump without an end")
        yield rows


def _dump_block(requests: Sequence[Request], start: int) -> Block:
    packed = [
        pack_message(request.type, request.flags | NLM_F_REQUEST | NLM_F_DUMP, sequence, request.payload)
        for sequence, request in enumerate(requests, start + 1)
    ]
    return Block(b"".join(packed), start + len(requests), one_by_one=True)


def attempt_all(
    transport: Transport, family: Family, requests: Iterable[Request], *, until_failure: bool = False
) -> dict[int, KernelError]:
    """Send many requests that answer nothing but success, in large blocks; the failures by index.

    The kernel carries on after a failure: whoever needs all or nothing has to undo. With ``until_failure``
    blocks that are not yet under way when the first is known are not sent.

    :raise ProtocolError: an answer breaks the format.
    """
    operations: list[str] = []
    failures: dict[int, KernelError] = {}
    blocks = _grouped(requests, operations)
    if until_failure:
        blocks = takewhile(lambda _: not failures, blocks)
    for data in transport.exchange(family, blocks):
        for message in iter_messages(data):
            if message.type != NLMSG_ERROR or not 1 <= message.sequence <= len(operations):
                continue
            outcome = unpack_outcome(message)
            if outcome.errno:
                index = message.sequence - 1
                failures[index] = KernelError(operations[index], outcome.errno, outcome.extack)
    return dict(sorted(failures.items()))


def blocks_of(requests: Iterable[Request]) -> Iterator[Block]:
    """The blocks that ``attempt_all`` sends."""
    return _grouped(requests, [])


def call_all(transport: Transport, family: Family, requests: Iterable[Request]) -> None:
    """``attempt_all`` for requests of which none is expected to fail.

    :raise KernelError: the first failure; later requests were carried out all the same.
    :raise ProtocolError: an answer breaks the format.
    """
    for failure in attempt_all(transport, family, requests).values():
        raise failure


def _block(request: Request, sequence: int) -> Block:
    flags = request.flags | NLM_F_REQUEST | (0 if request.is_dump else NLM_F_ACK)
    return Block(pack_message(request.type, flags, sequence, request.payload), sequence, one_by_one=request.is_dump)


def _grouped(requests: Iterable[Request], operations: list[str]) -> Iterator[Block]:
    """Blocks in which only the last message asks for its acknowledgement; notes each operation."""
    packed: list[bytes] = []
    size = 0
    held: Request | None = None
    for request in requests:
        if held is not None:
            packed.append(pack_message(held.type, held.flags | NLM_F_REQUEST, len(operations), held.payload))
            size += len(packed[-1])
        if held is not None and (size + len(request.payload) > BLOCK_BYTES or len(packed) >= BLOCK_MESSAGES):
            flags = held.flags | NLM_F_REQUEST | NLM_F_ACK
            packed[-1] = pack_message(held.type, flags, len(operations), held.payload)
            yield Block(b"".join(packed), len(operations))
            packed, size = [], 0
        operations.append(request.operation)
        held = request
    if held is not None:
        flags = held.flags | NLM_F_REQUEST | NLM_F_ACK
        packed.append(pack_message(held.type, flags, len(operations), held.payload))
        yield Block(b"".join(packed), len(operations))


def _read_answer(request: Request, sequence: int, data: bytes) -> _Answer:
    messages: list[Message] = []
    interrupted = False
    for message in iter_messages(data):
        if message.sequence != sequence:
            raise ProtocolError(f"a netlink answer to message {message.sequence} instead of {sequence}")
        interrupted = interrupted or bool(message.flags & NLM_F_MULTI and message.flags & NLM_F_DUMP_INTR)
        if message.type in (NLMSG_ERROR, NLMSG_DONE):
            outcome = unpack_outcome(message)
            if outcome.errno == errno.EINTR and request.is_dump:
                return _Answer([], True)
            if outcome.errno:
                raise KernelError(request.operation, outcome.errno, outcome.extack)
            return _Answer(messages, interrupted)
        if message.type == NLMSG_OVERRUN:
            raise ProtocolError("a netlink answer that lost messages")
        if message.type != NLMSG_NOOP:
            messages.append(message)
    raise ProtocolError("a netlink answer without an end")
