"""Hands netlink bytes to the guest's kernel and its answers back; knows headers, not meanings."""

from __future__ import annotations

import errno
import select
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# include/uapi/linux/netlink.h: the families the host may speak, and no others.
_ROUTE, _NETFILTER, _GENERIC = 0, 12, 16
FAMILIES = frozenset({_ROUTE, _NETFILTER, _GENERIC})

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_DONE_START = struct.Struct("=HHI")  # type, flags, sequence inside nlmsghdr
# NLM_F_MULTI, with and without NLM_F_DUMP_INTR and NLM_F_ACK_TLVS.
_DONE_FLAGS = (0x002, 0x012, 0x202, 0x212)

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
# Room for the errors of a 64 KiB block of which every message fails; SO_RCVBUFFORCE since the default
# limit (net.core.rmem_max) is 208 KiB.
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; Python names it from 3.12 on
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
_DATAGRAM_BYTES = 256 * 1024
_PIECE_BYTES = 64 * 1024
# The kernel answers a request before send() returns; only a block without any answer waits this long.
_ANSWER_SECONDS = 10.0


def open_socket(family: int) -> socket.socket:
    """A netlink socket that reports errors with the kernel's own sentence (NETLINK_EXT_ACK).

    :raise OSError: when the kernel lacks the family, or it is none of ``FAMILIES``.
    """
    if family not in FAMILIES:
        raise OSError(errno.EAFNOSUPPORT, "netlink family not relayed")
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.settimeout(_ANSWER_SECONDS)
        opened.bind((0, 0))
    except OSError:
        opened.close()
        raise
    return opened


class Relay:
    """The sockets kept open between requests, one a family."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def exchange(self, family: int, last: int, block: bytes, emit: Callable[[bytes], bool]) -> None:
        """Send ``block``; pass each datagram of the answer to ``emit`` until sequence ``last`` is answered.

        ``emit`` returns False when nobody wants more.

        :raise OSError: the socket's errno; ETIMEDOUT when the kernel gave no answer to ``last``.
        """
        opened = self._sockets.get(family)
        if opened is None:
            opened = self._sockets[family] = open_socket(family)
        try:
            opened.send(block)
            for data in _gathered(opened, last):
                if not emit(data):
                    # The rest of the dump must not be taken for the answer to the next request.
                    self._close(family)
                    return
        except TimeoutError:
            self._close(family)
            raise OSError(errno.ETIMEDOUT, "the kernel gave no answer") from None
        except OSError:
            self._close(family)
            raise

    def _close(self, family: int) -> None:
        opened = self._sockets.pop(family, None)
        if opened is not None:
            opened.close()


def _gathered(opened: socket.socket, last: int) -> Iterator[bytes]:
    """The datagrams of an answer, several in one piece: each piece crosses the port at a price of its own.

    Of several dumps in a block the kernel refuses one while another is under way (EBUSY), and so can answer the
    last before an earlier one ends: what is still there belongs to the answer.
    """
    gathered: list[bytes] = []
    size = 0
    ended = False
    while not ended or select.select([opened], [], [], 0)[0]:
        data = opened.recv(_DATAGRAM_BYTES)
        ended = ended or ends_exchange(data, last)
        gathered.append(data)
        size += len(data)
        if size >= _PIECE_BYTES:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


def subscribe(family: int, group: int) -> socket.socket:
    """A non-blocking socket that receives the notifications of one multicast group.

    :raise OSError: unknown family or group.
    """
    opened = open_socket(family)
    try:
        opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def ends_exchange(data: bytes, last: int) -> bool:
    """Whether a datagram holds the NLMSG_ERROR or NLMSG_DONE of sequence ``last``.

    Walking the headers of a large dump costs more than the dump itself under emulation, so a datagram of
    a dump (NLM_F_MULTI) is first searched for the bytes that every NLMSG_DONE begins with.
    """
    if len(data) < _HEADER.size:
        return False
    _, kind, flags, _, _ = _HEADER.unpack_from(data)
    if flags & 0x002 and kind not in (_NLMSG_ERROR, _NLMSG_DONE):
        starts = (_DONE_START.pack(_NLMSG_DONE, flag, last) for flag in _DONE_FLAGS)
        if not any(start in data for start in starts):
            return False
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if sequence == last and kind in (_NLMSG_ERROR, _NLMSG_DONE):
            return True
        if length < _HEADER.size:
            return False
        offset += (length + 3) & ~3
    return False
