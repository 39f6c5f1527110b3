"""Relays netlink messages to the guest's kernel and its answers back; parses only their headers."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest.netlink_block import MAX_BLOCK_BYTES
from kata_runtime.guest.wire import proc_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# The only netlink families (include/uapi/linux/netlink.h) that the host may use.
_ROUTE, _NETFILTER, _GENERIC = 0, 12, 16
FAMILIES = frozenset({_ROUTE, _NETFILTER, _GENERIC})
# Also allowed for subscriptions: events of devices (NETLINK_KOBJECT_UEVENT).
_UEVENT = 15

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_DONE_START = struct.Struct("=HHI")  # type, flags, sequence inside nlmsghdr
# NLM_F_MULTI, with and without NLM_F_DUMP_INTR and NLM_F_ACK_TLVS.
_DONE_FLAGS = (0x002, 0x012, 0x202, 0x212)
# It is the last message of its datagram; with what the kernel may add about an error it has some 200 bytes.
_DONE_BYTES = 1024

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
# Enough for the errors of a block of 3,000 messages that all fail, and for a block in one send(): netlink_sendmsg
# refuses with EMSGSIZE what is larger than the buffer. They are forced, because the usual limits (net.core.rmem_max and
# net.core.wmem_max) are 208 KiB.
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # include/uapi/asm-generic/socket.h; Python names them from 3.12 on
_SEND_BUFFER_BYTES = 2 * MAX_BLOCK_BYTES
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
# The kernel makes the datagrams of a dump as large as the largest receive buffer so far, up to 32 KiB
# (net/netlink/af_netlink.c, netlink_recvmsg); the answer to a single request can be larger.
_DATAGRAM_BYTES = 256 * 1024
# A piece is sent when it has this size, since each costs a write. Most datagrams are smaller than 8 KiB, so a piece and
# its frame stay below the 32 KiB that virtio_console takes in one write (Linux 6.1, port_fops_write).
PIECE_BYTES = 24 * 1024
# The kernel answers a request before send() returns, so only a block without any answer waits this long.
_ANSWER_SECONDS = 10.0


class KernelWait(NamedTuple):
    """The kernel has not answered yet: continue when ``fd`` is readable, or at ``deadline`` (monotonic clock)."""

    fd: int
    deadline: float


# A step of an answer: a piece of it, whose buffer the next step overwrites, or a wait for the kernel.
Step = memoryview | KernelWait


def open_socket(family: int, allowed: frozenset[int] = FAMILIES) -> socket.socket:
    """Open a netlink socket with extended error messages of the kernel (NETLINK_EXT_ACK).

    :raise OSError: when the kernel lacks the family, or it is none of ``allowed``.
    """
    if family not in allowed:
        raise OSError(errno.EAFNOSUPPORT, "netlink family not relayed")
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.setblocking(False)
        opened.bind((0, 0))
    except OSError:
        opened.close()
        raise
    return opened


class Pieces:
    """One receive buffer for everything; a new one for each datagram would cost memory mappings and page faults."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(PIECE_BYTES + _DATAGRAM_BYTES))
        self._filled = 0

    def begin(self) -> None:
        """Start an answer."""
        self._filled = 0

    def room(self) -> memoryview:
        """The free part of the buffer, for the next datagram."""
        return self._buffer[self._filled :]

    def add(self, size: int) -> memoryview | None:
        """Count ``size`` received bytes; return the piece once it is large enough to be sent."""
        self._filled += size
        return None if self._filled < PIECE_BYTES else self.end()

    def end(self) -> memoryview | None:
        """The last piece, if there is one."""
        filled, self._filled = self._filled, 0
        return self._buffer[:filled] if filled else None


class Relay:
    """Keeps one socket open for each family; serves one request at a time."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._pieces = Pieces()

    def close(self) -> None:
        """Close the sockets; the next exchange opens new ones."""
        for family in list(self._sockets):
            self._close(family)

    def exchange(
        self, family: int, last: int, block: bytes | bytearray, *, one_by_one: bool
    ) -> Generator[Step, None, None]:
        """Send ``block`` and yield the answer in pieces of whole messages, until sequence ``last`` is answered.

        ``one_by_one``: each message requests a dump. A socket runs one dump at a time and refuses another with EBUSY,
        so each is sent when the previous one has ended.

        :raise OSError: the socket's errno; ETIMEDOUT when the kernel gave no answer.
        """
        opened = self._sockets.get(family)
        if opened is None:
            opened = self._sockets[family] = open_socket(family)
        self._pieces.begin()
        is_complete = False
        try:
            yield from self._dumps(opened, block) if one_by_one else self._answer(opened, block, last)
            is_complete = True
        finally:
            if not is_complete:
                # The rest of a dump must not be taken for the answer to the next request.
                self._close(family)

    def read(self, name: str) -> Generator[Step, None, None]:
        """Yield a file of /proc/net in pieces, or /proc/modules.

        :raise OSError: ENOENT and the like.
        """
        self._pieces.begin()
        fd = os.open(proc_file(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # One read returns at most a page (fs/seq_file.c).
            while size := os.readv(fd, [self._pieces.room()]):
                if (piece := self._pieces.add(size)) is not None:
                    yield piece
        finally:
            os.close(fd)
        if (piece := self._pieces.end()) is not None:
            yield piece

    def _answer(self, opened: socket.socket, block: bytes | bytearray, last: int) -> Generator[Step, None, None]:
        opened.send(block)
        ended = False
        while not ended:
            room = self._pieces.room()
            size = yield from _receive(opened, room)
            ended = ends_exchange(bytes(room[:size]), last)
            if (piece := self._pieces.add(size)) is not None:
                yield piece
        if (piece := self._pieces.end()) is not None:
            yield piece

    def _dumps(self, opened: socket.socket, block: bytes | bytearray) -> Generator[Step, None, None]:
        for start, end in _bounds(block):
            opened.send(block[start:end])
            room = self._pieces.room()
            size = yield from _receive(opened, room)
            while True:
                ended = _HEADER.unpack_from(room)[1] in (_NLMSG_ERROR, _NLMSG_DONE)
                if (piece := self._pieces.add(size)) is not None:
                    yield piece
                if ended:
                    break
                room = self._pieces.room()
                try:
                    # The next datagram is there already: receiving one makes the kernel produce it (netlink_recvmsg).
                    size = opened.recv_into(room)
                except BlockingIOError:
                    # NLMSG_DONE was in the same datagram as the last row; usually it has one of its own (netlink_dump).
                    break
        if (piece := self._pieces.end()) is not None:
            yield piece

    def _close(self, family: int) -> None:
        opened = self._sockets.pop(family, None)
        if opened is not None:
            opened.close()


def _receive(opened: socket.socket, room: memoryview) -> Generator[Step, None, int]:
    try:
        return opened.recv_into(room)
    except BlockingIOError:
        wait = KernelWait(opened.fileno(), time.monotonic() + _ANSWER_SECONDS)
    while True:
        yield wait
        try:
            return opened.recv_into(room)
        except BlockingIOError:
            if time.monotonic() >= wait.deadline:
                raise OSError(errno.ETIMEDOUT, "the kernel gave no answer") from None


def _bounds(block: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """The offsets at which each message of a block begins and ends.

    :raise OSError: EBADMSG: the block does not consist of whole messages.
    """
    offset = 0
    while offset < len(block):
        left = len(block) - offset
        length = _HEADER.unpack_from(block, offset)[0] if left >= _HEADER.size else 0
        if not _HEADER.size <= length <= left:
            raise OSError(errno.EBADMSG, "a block that is not made of messages")
        yield offset, offset + length
        offset += (length + 3) & ~3


def subscribe(family: int, group: int) -> socket.socket:
    """A non-blocking socket that receives the notifications of one multicast group.

    :raise OSError: unknown family or group.
    """
    opened = open_socket(family, FAMILIES | {_UEVENT})
    try:
        opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        opened.close()
        raise
    return opened


def ends_exchange(data: bytes, last: int) -> bool:
    """Whether a datagram contains the NLMSG_ERROR or NLMSG_DONE of sequence ``last``.

    On an emulated processor, walking the headers of a large dump costs more than the dump itself. A datagram of a dump
    (NLM_F_MULTI) is therefore first searched, near its end, for the bytes with which every NLMSG_DONE begins.
    """
    if len(data) < _HEADER.size:
        return False
    _, kind, flags, _, _ = _HEADER.unpack_from(data)
    if flags & 0x002 and kind not in (_NLMSG_ERROR, _NLMSG_DONE):
        starts = (_DONE_START.pack(_NLMSG_DONE, flag, last) for flag in _DONE_FLAGS)
        tail = data[-_DONE_BYTES:]
        if not any(start in tail for start in starts):
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
