"""The payload of a NETLINK request: a block of messages for the guest's kernel, compressed so that it expands fast.

Large blocks are usually messages of a few lengths that differ in a few bytes. They travel as a table with a row for
each message: a template for each length, and the columns of bytes in which rows differ from their template. Without
KVM the guest expands that in a third of the time of DEFLATE alone (RFC 1951), and reads a tenth of its bytes.

Rows have one width. A shorter message is followed by an empty one (NLMSG_NOOP), which the kernel skips (netlink(7);
net/netlink/af_netlink.c, netlink_rcv_skb).

This module runs on both sides; it imports only the standard library and raises only ``FrameError``.
"""

from __future__ import annotations

import struct
import zlib

from kata_runtime.guest.wire import FrameError, pack_target, unpack_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# The largest block as the kernel gets it; the agent's sockets take as much at once.
MAX_BLOCK_BYTES = 512 * 1024

# Bits of ``how``.
_DEFLATED = 1  # size:u32, then compressed data: every 4 KiB towards the guest cost an interrupt and a read
_ONE_BY_ONE = 2  # each message requests a dump, and is sent to the kernel when the previous dump has ended
_TABLE = 4  # the compressed data are a table

# A block larger than this is worth compressing.
_DEFLATE_BYTES = 2048
# Negative: the largest window, without zlib's frame. Without KVM its checksum takes the guest a third of the time.
_NO_CHECKSUM = -15
_TEMPLATES_MAX = 8
_NUMBER = struct.Struct("!I")
# Of a table: rows:u32 width:u16 columns:u16 templates:u8. The first template and, for each other, a template,
# count:u32 and the numbers of its rows (u32) follow; then the positions of the columns (u16), and the columns.
_TABLE_HEADER = struct.Struct("!IHHB")
_MESSAGE_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NLMSG_NOOP = 1


def pack_netlink(family: int, last: int, block: bytes, *, one_by_one: bool) -> bytes:
    """The payload of NETLINK for ``block``, whose last message has sequence ``last``; large blocks are compressed."""
    how = _ONE_BY_ONE if one_by_one else 0
    if len(block) > _DEFLATE_BYTES:
        how |= _DEFLATED
        table = _pack_table(block, is_padded=not one_by_one)
        if table is not None:
            how |= _TABLE
            block = table
        block = _NUMBER.pack(len(block)) + zlib.compress(block, 1, _NO_CHECKSUM)
    return b"".join((pack_target(family, last), bytes([how]), block))


def unpack_netlink(payload: bytes) -> tuple[int, int, bool, bytes | bytearray]:
    """Decode the payload of NETLINK: ``(family, last sequence, whether one by one, messages)``.

    The messages can be followed by empty ones.

    :raise FrameError: the payload is too short or damaged, or has too many messages.
    """
    family, last, rest = unpack_target(payload)
    if not rest:
        raise FrameError("a block that does not say how it is sent")
    how, block = rest[0], rest[1:]
    if how & _DEFLATED:
        block = _inflate(block)
    return family, last, bool(how & _ONE_BY_ONE), _unpack_table(block) if how & _TABLE else block


def _inflate(data: bytes) -> bytes:
    if len(data) < _NUMBER.size:
        raise FrameError("a number that is cut short")
    (size,) = _NUMBER.unpack_from(data)
    try:
        # With the size known, zlib needs no second buffer. The host compressed it, which is trusted.
        inflated = zlib.decompress(data[_NUMBER.size :], _NO_CHECKSUM, min(size, MAX_BLOCK_BYTES))
    except zlib.error as error:
        raise FrameError(f"compressed messages that are damaged: {error}") from None
    if len(inflated) != size or size > MAX_BLOCK_BYTES:
        raise FrameError(f"{len(inflated)} bytes of compressed messages instead of {size}")
    return inflated


def _pack_table(block: bytes, *, is_padded: bool) -> bytes | None:
    """The block as a table; None if its messages are too different, or are not whole ones."""
    messages = _split(block)
    rows: dict[int, list[int]] = {}
    for row, message in enumerate(messages):
        rows.setdefault(len(message), []).append(row)
    if not 1 <= len(rows) <= (_TEMPLATES_MAX if is_padded else 1):
        return None
    width = max(rows)
    # Room for the header of an empty message, or for none.
    while any(0 < width - length < _MESSAGE_HEADER.size for length in rows):
        width += 4
    if width > 0xFFFF or len(messages) * width > min(2 * len(block), MAX_BLOCK_BYTES):
        return None
    if len(rows) > 1 or width > max(rows):
        padding = {length: _empty_message(width - length) for length in rows}
        messages = [message + padding[len(message)] for message in messages]
    usual, *others = sorted(rows.values(), key=len, reverse=True)
    table = b"".join(messages)
    positions: set[int] = set()
    for same in (usual, *others):
        part = b"".join([messages[row] for row in same]) if others else table
        columns = ((place, part[place::width]) for place in range(width))
        positions.update(place for place, column in columns if column.count(column[0]) != len(column))
    places = sorted(positions)
    parts = [_TABLE_HEADER.pack(len(messages), width, len(places), len(rows)), messages[usual[0]]]
    for same in others:
        parts += (messages[same[0]], _NUMBER.pack(len(same)), struct.pack(f"!{len(same)}I", *same))
    parts.append(struct.pack(f"!{len(places)}H", *places))
    return b"".join([*parts, *(table[place::width] for place in places)])


def _empty_message(size: int) -> bytes:
    return _MESSAGE_HEADER.pack(size, _NLMSG_NOOP, 0, 0, 0).ljust(size, b"\0") if size else b""


def _split(block: bytes) -> Sequence[bytes]:
    """The messages of a block; none if it does not consist of whole ones, each padded to four bytes."""
    messages: list[bytes] = []
    start = 0
    while start < len(block):
        if start + _MESSAGE_HEADER.size > len(block):
            return ()
        end = start + ((_MESSAGE_HEADER.unpack_from(block, start)[0] + 3) & ~3)
        if not start + _MESSAGE_HEADER.size <= end <= len(block):
            return ()
        messages.append(block[start:end])
        start = end
    return messages


def _unpack_table(data: bytes) -> bytearray:
    """The messages of a table, with the empty ones.

    :raise FrameError: it is damaged or too large.
    """
    try:
        count, width, columns, templates = _TABLE_HEADER.unpack_from(data)
        if count * width > MAX_BLOCK_BYTES:
            raise FrameError(f"a table of {count * width} bytes")
        offset = _TABLE_HEADER.size
        block: bytearray = bytearray(data[offset : offset + width]) * count
        offset += width
        for _ in range(templates - 1):
            template = data[offset : offset + width]
            (size,) = _NUMBER.unpack_from(data, offset + width)
            offset += width + _NUMBER.size
            for row in struct.unpack_from(f"!{size}I", data, offset):
                start = row * width
                block[start : start + width] = template
            offset += _NUMBER.size * size
        places = struct.unpack_from(f"!{columns}H", data, offset)
        offset += 2 * columns
        for place in places:
            block[place::width] = data[offset : offset + count]
            offset += count
    except (struct.error, ValueError):
        raise FrameError("a table that is cut short") from None
    if len(block) != count * width or offset != len(data):
        raise FrameError(f"a table of {len(data)} bytes instead of {offset}")
    return block
