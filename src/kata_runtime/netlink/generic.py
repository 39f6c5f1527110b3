"""Generic netlink: families by name (include/uapi/linux/genetlink.h)."""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request, asked
from kata_runtime.netlink.message import pack_text, parse_attributes, unpack_text, unpack_u16, unpack_u32
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.netlink.transport import Transport

# include/uapi/linux/genetlink.h
_GENL_ID_CTRL = 0x10
_CTRL_CMD_GETFAMILY = 3
_CTRL_ATTR_FAMILY_ID = 1
_CTRL_ATTR_FAMILY_NAME = 2
_CTRL_ATTR_VERSION = 3

_HEADER = struct.Struct("=BBxx")  # struct genlmsghdr: command, version


class GenericFamily(NamedTuple):
    """A family and the message type that the kernel gave it when its module was loaded."""

    name: str
    id: int
    version: int


class GenericMessage(NamedTuple):
    """A payload of a generic netlink message; ``attributes`` still packed."""

    command: int
    version: int
    attributes: bytes


def pack_generic(command: int, version: int, attributes: bytes = b"") -> bytes:
    """The payload of a generic netlink message."""
    return _HEADER.pack(command, version) + attributes


def unpack_generic(payload: bytes) -> GenericMessage:
    """The parts of a payload.

    :raise ProtocolError: it is too short.
    """
    if len(payload) < _HEADER.size:
        raise ProtocolError(f"a generic netlink message of {len(payload)} bytes")
    command, version = _HEADER.unpack_from(payload)
    return GenericMessage(command, version, payload[_HEADER.size :])


def get_family(name: str) -> Request:
    """Ask for a family by name; no such one is ENOENT (its module is not loaded)."""
    payload = pack_generic(_CTRL_CMD_GETFAMILY, 1, pack_text(_CTRL_ATTR_FAMILY_NAME, name))
    return Request(f"look up netlink family {name!r}", _GENL_ID_CTRL, 0, payload)


def unpack_family(payload: bytes) -> GenericFamily:
    """The family that a CTRL_CMD_NEWFAMILY describes.

    :raise ProtocolError: the bytes break the format.
    """
    attributes = parse_attributes(unpack_generic(payload).attributes)
    return GenericFamily(
        unpack_text(attributes.get(_CTRL_ATTR_FAMILY_NAME, b"")),
        unpack_u16(attributes.get(_CTRL_ATTR_FAMILY_ID, b"")),
        unpack_u32(attributes.get(_CTRL_ATTR_VERSION, bytes(4))),
    )


def find_family(transport: Transport, name: str) -> GenericFamily:
    """Look a family up.

    :raise KernelError: ENOENT when the kernel has no such family.
    :raise ProtocolError: the answer breaks the format.
    """
    return ask_family(transport, name)()


def ask_family(transport: Transport, name: str) -> Callable[[], GenericFamily]:
    """``find_family`` in two steps: the family is asked for, and what is returned takes the answer."""
    take = asked(transport, Family.GENERIC, get_family(name), unpack_family, repeatable=True)

    def family() -> GenericFamily:
        for found in take():
            return found
        raise ProtocolError(f"no answer about the netlink family {name!r}")

    return family
