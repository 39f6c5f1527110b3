"""Requests and their answers, over any transport.

Sequence numbers start at 1 in every exchange: a transport never mixes the answers of two exchanges.
"""

from __future__ import annotations

import errno
from itertools import takewhile

from kata_runtime.errors import KernelError, ProtocolError
from kata_runtime.named_tuple import NamedTuple
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
from kata_runtime.netlink.transport import Block, Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    from kata_runtime.netlink.transport import Transport

    T = TypeVar("T")

# A block is one send(): less than the agent's netlink socket takes at once, also when shorter messages are padded, and
# as many messages as can all fail without overflowing the 4 MiB receive buffer (an error costs about 1 KiB of it).
BLOCK_BYTES = 384 * 1024
BLOCK_MESSAGES = 3000
# The kernel begins while the next one is encoded, which takes a third of its time.
_FIRST_BLOCK_MESSAGES = 200
_GROWTH = 3
# The answers to a block (450 KiB for services with 20 servers) cross the port while the next block is sent.
_BLOCK_DUMPS = 64

# A dump during which the table changed says so (NLM_F_DUMP_INTR) and may lack rows: it is read again.
_DUMP_ATTEMPTS = 8


# How much of an answer a command keeps in memory, since a guest can send rows without end: the payload of each row plus
# the objects decoded from it.
ROW_BYTES = 512
_HELD_BYTES = 48 << 20
_DECODED_BYTES = 100 << 20
_DUMP_ROWS = 50_000


class Request(NamedTuple):
    """One request; ``operation`` describes it for ``KernelError``.

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


def call(transport: Transport, family: Family, request: Request, *, repeatable: bool = False) -> list[Message]:
    """Send one request; returns the messages that the kernel sent before its acknowledgement.

    ``repeatable``: it only reads.

    :raise KernelError: the kernel refused, or a dump kept being interrupted (EINTR).
    :raise ProtocolError: the answer breaks the format.
    """
    return call_each(transport, family, [request], repeatable=repeatable)[0]


def dump(transport: Transport, family: Family, request: Request) -> list[Message]:
    """``call`` for a request that lists a table: NLM_F_DUMP is set for it."""
    return call(transport, family, request._replace(flags=request.flags | NLM_F_DUMP))


def call_each(
    transport: Transport, family: Family, requests: Sequence[Request], *, repeatable: bool = False
) -> list[list[Message]]:
    """Send several requests, dumps too, in one round trip; returns the messages answered to each, in order.

    All requests are sent, even when the first one fails.

    :raise KernelError: of the first that was refused.
    :raise ProtocolError: an answer breaks the format, or all have more rows than can be held.
    """
    answers: list[list[Message]] = [[] for _ in requests]
    waiting = list(range(len(requests)))
    for _ in range(_DUMP_ATTEMPTS):
        blocks = [_block(requests[i], i + 1)._replace(repeatable=repeatable) for i in waiting]
        messages = _messages(transport.exchange(family, blocks))
        again: list[int] = []
        failure: KernelError | None = None
        held = 0
        for index in waiting:
            rows = answers[index] = []
            for message in _rows(requests[index], index + 1, messages):
                if isinstance(message, KernelError):
                    failure = failure or message
                elif message is None:
                    again.append(index)
                else:
                    held += len(message.payload) + ROW_BYTES
                    if held > _HELD_BYTES:
                        raise _too_many(requests[index])
                    rows.append(message)
        _expect_end(messages)
        if failure is not None:
            raise failure
        if not again:
            return answers
        waiting = again
    raise _interrupted(requests[waiting[0]])


def dump_each(
    transport: Transport, family: Family, requests: Sequence[Request], decode: Callable[[int, bytes], T]
) -> Iterator[tuple[int, list[T]]]:
    """The rows of very many small dumps, with the index of their request, as they arrive.

    ``decode`` is called with that index and the payload of a row, and returns what is yielded. The dumps are in
    order, except those during which the table changed: they are requested again at the end.

    :raise KernelError: of the first that was refused.
    :raise ProtocolError: an answer breaks the format, or a dump has more rows than can be held.
    """
    again: list[int] = []
    starts = range(0, len(requests), _BLOCK_DUMPS)
    blocks = (_dump_block(requests[start : start + _BLOCK_DUMPS], start) for start in starts)
    messages = _messages(transport.exchange(family, blocks))
    for index, request in enumerate(requests):
        rows: list[T] = []
        is_whole = True
        for message in _rows(request, index + 1, messages):
            if isinstance(message, KernelError):
                raise message
            if message is None:
                is_whole = False
            elif is_whole:
                rows.append(decode(index, message.payload))
                if len(rows) > _DUMP_ROWS:
                    raise _too_many(request)
        if is_whole:
            yield index, rows
        else:
            again.append(index)
    _expect_end(messages)
    for index in again:
        yield index, decoded(transport, family, requests[index], _bound(decode, index))


def _bound(decode: Callable[[int, bytes], T], index: int) -> Callable[[bytes], T]:
    return lambda payload: decode(index, payload)


def decoded(
    transport: Transport, family: Family, request: Request, decode: Callable[[bytes], T], *, row_bytes: int = ROW_BYTES
) -> list[T]:
    """``call`` for a dump of very many rows, each decoded as it comes; ``row_bytes`` is what is kept of one.

    :raise KernelError: the kernel refused, or the dump kept being interrupted (EINTR).
    :raise ProtocolError: the answer breaks the format, or has more rows than can be held.
    """
    return asked(transport, family, request, decode, row_bytes=row_bytes)()


def asked(
    transport: Transport,
    family: Family,
    request: Request,
    decode: Callable[[bytes], T],
    *,
    row_bytes: int = ROW_BYTES,
    repeatable: bool = False,
) -> Callable[[], list[T]]:
    """``decoded`` in two steps: the request is sent, and what is returned takes the answer.

    ``repeatable`` as in ``call``. Other answers may be taken only before or after this one, in the requests' order.
    """
    first = transport.exchange(family, [_block(request, 1)._replace(repeatable=repeatable)])

    def finish() -> list[T]:
        pieces = first
        for _ in range(_DUMP_ATTEMPTS):
            rows = _decoded_rows(request, _messages(pieces), decode, row_bytes)
            if rows is not None:
                return rows
            pieces = transport.exchange(family, [_block(request, 1)])
        raise _interrupted(request)

    return finish


def _decoded_rows(
    request: Request, messages: Iterator[Message], decode: Callable[[bytes], T], row_bytes: int
) -> list[T] | None:
    """None if the table changed meanwhile."""
    rows: list[T] = []
    is_whole = True
    failure: KernelError | None = None
    for message in _rows(request, 1, messages):
        if isinstance(message, KernelError):
            failure = message
        elif message is None:
            is_whole = False
        else:
            rows.append(decode(message.payload))
            if len(rows) * row_bytes > _DECODED_BYTES:
                raise _too_many(request)
    _expect_end(messages)
    if failure is not None:
        raise failure
    return rows if is_whole else None


def _messages(pieces: Iterable[bytes]) -> Iterator[Message]:
    for piece in pieces:
        yield from iter_messages(piece)


def _rows(request: Request, sequence: int, messages: Iterator[Message]) -> Iterator[Message | KernelError | None]:
    """The rows of one answer, then the kernel's refusal if there was one, or None if the table changed meanwhile."""
    was_interrupted = False
    for message in messages:
        if message.sequence != sequence:
            raise ProtocolError(f"a netlink answer to message {message.sequence} instead of {sequence}")
        was_interrupted = was_interrupted or bool(message.flags & NLM_F_MULTI and message.flags & NLM_F_DUMP_INTR)
        if message.type in (NLMSG_ERROR, NLMSG_DONE):
            outcome = unpack_outcome(message)
            if was_interrupted or (outcome.errno == errno.EINTR and request.is_dump):
                yield None
            elif outcome.errno:
                yield KernelError(request.operation, outcome.errno, outcome.extack)
            return
        if message.type == NLMSG_OVERRUN:
            raise ProtocolError("a netlink answer that lost messages")
        if message.type != NLMSG_NOOP:
            yield message
    raise ProtocolError("a netlink answer without an end")


def _expect_end(messages: Iterator[Message]) -> None:
    for message in messages:
        raise ProtocolError(f"a netlink answer to message {message.sequence}, which was answered before")


def _interrupted(request: Request) -> KernelError:
    return KernelError(request.operation, errno.EINTR, hint="the table kept changing, try again")


def _too_many(request: Request) -> ProtocolError:
    return ProtocolError(f"{request.operation}: the kernel's answer has more rows than can be held in memory")


def _dump_block(requests: Sequence[Request], start: int) -> Block:
    packed = [
        pack_message(request.type, request.flags | NLM_F_REQUEST | NLM_F_DUMP, sequence, request.payload)
        for sequence, request in enumerate(requests, start + 1)
    ]
    return Block(b"".join(packed), start + len(requests), one_by_one=True)


def attempt_all(
    transport: Transport, family: Family, requests: Iterable[Request], *, until_failure: bool = False
) -> dict[int, KernelError]:
    """Send many requests that answer nothing but success, in large blocks; returns the failures by index.

    The kernel continues after a failure: a caller that needs all or nothing has to undo. With ``until_failure``,
    blocks that have not been sent when the first failure arrives are not sent.

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


def _block(request: Request, sequence: int) -> Block:
    flags = request.flags | NLM_F_REQUEST | (0 if request.is_dump else NLM_F_ACK)
    return Block(pack_message(request.type, flags, sequence, request.payload), sequence, one_by_one=request.is_dump)


def _grouped(requests: Iterable[Request], operations: list[str]) -> Iterator[Block]:
    """Blocks in which only the last message asks for its acknowledgement; notes each operation."""
    packed: list[bytes] = []
    size = 0
    most = _FIRST_BLOCK_MESSAGES
    last: Request | None = None
    for request in requests:
        operation, kind, flags, payload = request
        if last is not None and (size + len(payload) > BLOCK_BYTES or len(packed) >= most):
            yield _acknowledged(packed, last, len(operations))
            packed, size, most = [], 0, min(_GROWTH * most, BLOCK_MESSAGES)
        operations.append(operation)
        last = request
        message = pack_message(kind, flags | NLM_F_REQUEST, len(operations), payload)
        packed.append(message)
        size += len(message)
    if last is not None:
        yield _acknowledged(packed, last, len(operations))


def _acknowledged(packed: list[bytes], last: Request, sequence: int) -> Block:
    """A block of packed messages; the last one, of ``last``, is to be acknowledged."""
    packed[-1] = pack_message(last.type, last.flags | NLM_F_REQUEST | NLM_F_ACK, sequence, last.payload)
    return Block(b"".join(packed), sequence)
