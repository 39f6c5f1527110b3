"""Messages and attributes (netlink(7)); every length is checked against what is there.

Numbers are in the byte order of the machine: host and guest are of one architecture.
"""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# include/uapi/linux/netlink.h
NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH, on requests that get
NLM_F_REPLACE = 0x100  # on requests that set
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100  # on NLMSG_ERROR
NLM_F_ACK_TLVS = 0x200

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_NLMSGERR_ATTR_MSG = 1
_NLMSGERR_ATTR_OFFS = 2

# include/linux/err.h, MAX_ERRNO: no kernel reports more.
_MAX_ERRNO = 4095
# The longest message of a kernel is far shorter; that of a hostile one must not flood a terminal.
_MAX_EXTACK_CHARACTERS = 256

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_S32 = struct.Struct("=i")
_U8 = struct.Struct("=B")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")


class Message(NamedTuple):
    """One message without its header's length and port."""

    type: int
    flags: int
    sequence: int
    payload: bytes


class Outcome(NamedTuple):
    """The content of NLMSG_ERROR or NLMSG_DONE: ``errno`` 0 is success, ``extack`` the kernel's message.

    ``offset`` is where in the request the refused attribute begins, counted from its header; 0 is unknown.
    """

    errno: int
    extack: str = ""
    offset: int = 0


def align(length: int) -> int:
    """NLMSG_ALIGN and NLA_ALIGN: the next multiple of four."""
    return (length + 3) & ~3


def pack_message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message, padded so that another can follow. Port 0: the kernel fills in the sender's."""
    length = _HEADER.size + len(payload)
    packed = _HEADER.pack(length, kind, flags, sequence, 0) + payload
    return packed + bytes(4 - length % 4) if length % 4 else packed


def iter_messages(data: bytes) -> Iterator[Message]:
    """The messages of an answer, in order.

    :raise ProtocolError: a length that is too small or reaches beyond the end, or trailing bytes.
    """
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _HEADER.size:
            raise ProtocolError(f"{end - offset} bytes where a netlink header should be")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= end - offset:
            raise ProtocolError(f"a netlink message of {length} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += align(length)


def pack_attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(align(length) - length)


def pack_nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of packed attributes, marked with NLA_F_NESTED."""
    return pack_attribute(kind | NLA_F_NESTED, b"".join(attributes))


def pack_u8(kind: int, value: int) -> bytes:
    """An attribute with one byte."""
    return pack_attribute(kind, _U8.pack(value))


def pack_u16(kind: int, value: int) -> bytes:
    """An attribute with a 16-bit number."""
    return pack_attribute(kind, _U16.pack(value))


def pack_u32(kind: int, value: int) -> bytes:
    """An attribute with a 32-bit number."""
    return pack_attribute(kind, _U32.pack(value))


def pack_text(kind: int, value: str) -> bytes:
    """An attribute with a string and its NUL."""
    return pack_attribute(kind, value.encode() + b"\0")


def iter_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """``(type, payload)`` of each attribute in order, the type without its two flags.

    :raise ProtocolError: a length that is too small or reaches beyond the end, or trailing bytes.
    """
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _ATTRIBUTE.size:
            raise ProtocolError(f"{end - offset} bytes where a netlink attribute should be")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            raise ProtocolError(f"a netlink attribute of {length} bytes where {end - offset} are left")
        yield kind & _NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += align(length)


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by type; of a repeated one the last counts, as in the kernel's nla_parse().

    :raise ProtocolError: as ``iter_attributes``.
    """
    return dict(iter_attributes(data))


def _unpack(layout: struct.Struct, payload: bytes) -> int:
    if len(payload) != layout.size:
        raise ProtocolError(f"a netlink number of {len(payload)} bytes instead of {layout.size}")
    value: int = layout.unpack(payload)[0]
    return value


def unpack_u8(payload: bytes) -> int:
    """The number in an attribute.

    :raise ProtocolError: wrong length; so for the other widths.
    """
    return _unpack(_U8, payload)


def unpack_u16(payload: bytes) -> int:
    """16 bits."""
    return _unpack(_U16, payload)


def unpack_u32(payload: bytes) -> int:
    """32 bits."""
    return _unpack(_U32, payload)


def unpack_text(payload: bytes) -> str:
    """A string up to its NUL. Bytes that are no UTF-8 come out as backslash escapes: peers may send any."""
    return payload.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def unpack_outcome(message: Message) -> Outcome:
    """What an NLMSG_ERROR or NLMSG_DONE reports.

    :raise ProtocolError: its bytes break the format.
    """
    payload = message.payload
    if message.type == NLMSG_DONE and not payload:
        return Outcome(0)  # an old-style end of a dump carries no number
    if len(payload) < _S32.size:
        raise ProtocolError(f"a netlink outcome of {len(payload)} bytes")
    errno = -_S32.unpack_from(payload)[0]
    if message.type == NLMSG_DONE:
        # Positive numbers end a dump too (the count that a handler returned): success.
        errno = max(errno, 0)
    if not 0 <= errno <= _MAX_ERRNO:
        raise ProtocolError(f"a netlink outcome with errno {errno}")
    if not message.flags & NLM_F_ACK_TLVS:
        return Outcome(errno)
    start = _S32.size
    if message.type == NLMSG_ERROR:
        start += _HEADER.size
        if len(payload) < start:
            raise ProtocolError(f"a netlink error of {len(payload)} bytes")
        if errno and not message.flags & NLM_F_CAPPED:
            # The whole request is quoted before the attributes.
            start += align(max(_HEADER.unpack_from(payload, _S32.size)[0] - _HEADER.size, 0))
    attributes = parse_attributes(payload[start:])
    offset = attributes.get(_NLMSGERR_ATTR_OFFS)
    return Outcome(
        errno,
        _clean(unpack_text(attributes.get(_NLMSGERR_ATTR_MSG, b""))),
        unpack_u32(offset) if offset else 0,
    )


def _clean(sentence: str) -> str:
    """Escape control characters of a guest's message, which could control the operator's terminal."""
    shown = "".join(character if character.isprintable() else "?" for character in sentence)
    return shown[:_MAX_EXTACK_CHARACTERS].strip()
