"""Decompresses the LZ4 legacy frame (``lz4 -l``), which the kernel's build writes.

Source: lz4_Frame_format.md and lz4_Block_format.md of the LZ4 project.

Python's standard library has no LZ4, and only Debian 12's kernel needs it: one call, about a second.
"""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError

MAGIC = b"\x02\x21\x4c\x18"
_SIZE = struct.Struct("<I")
_LARGEST_BLOCK = 8 << 20  # uncompressed; a block of incompressible data is at most a 255th longer
_LARGEST_COMPRESSED = _LARGEST_BLOCK + _LARGEST_BLOCK // 255 + 16
_LENGTH_CONTINUES = 15
_SHORTEST_MATCH = 4


def decompress(frame: bytes) -> bytes:
    """Return the content of a legacy frame, up to the first bytes that are no block; raise ProtocolError."""
    if not frame.startswith(MAGIC):
        raise ProtocolError("not an LZ4 legacy frame")
    position, blocks = len(MAGIC), []
    while position + _SIZE.size <= len(frame):
        (size,) = _SIZE.unpack_from(frame, position)
        position += _SIZE.size
        # The kernel's build appends the uncompressed size, which as the size of a block would be too large.
        if size == 0 or size > _LARGEST_COMPRESSED or position + size > len(frame):
            break
        blocks.append(_block(frame[position : position + size]))
        position += size
    return b"".join(blocks)


def _block(data: bytes) -> bytes:
    output, position = bytearray(), 0
    try:
        while position < len(data):
            token = data[position]
            literals, position = _length(data, position + 1, token >> 4)
            output += data[position : position + literals]
            position += literals
            if position >= len(data):
                break
            distance = data[position] | data[position + 1] << 8
            match, position = _length(data, position + 2, token & 15)
            _repeat(output, distance, match + _SHORTEST_MATCH)
    except IndexError as exc:
        raise ProtocolError("LZ4 block is cut short") from exc
    return bytes(output)


def _length(data: bytes, position: int, length: int) -> tuple[int, int]:
    """Return a length, which further bytes may extend, and the position after it."""
    if length == _LENGTH_CONTINUES:
        more = 255
        while more == 255:
            more = data[position]
            length += more
            position += 1
    return length, position


def _repeat(output: bytearray, distance: int, length: int) -> None:
    if not 0 < distance <= len(output):
        raise ProtocolError("LZ4 match points before the block")
    start = len(output) - distance
    if distance >= length:
        output += output[start : start + length]
    else:
        output += (output[start:] * (length // distance + 1))[:length]
