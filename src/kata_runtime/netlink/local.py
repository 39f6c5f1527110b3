"""This host's kernel as a transport: the only sockets of this package."""

from __future__ import annotations

from _socket import AF_NETLINK, SO_RCVBUF, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket

from kata_runtime.errors import DeadlineError, HostError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.netlink.exchange_logging import recorded
from kata_runtime.netlink.message import NLMSG_DONE, NLMSG_ERROR, align, iter_messages, pack_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol, Self, TypeVar

    from kata_runtime.netlink.transport import Block, Family

    T = TypeVar("T")

    class Enter(Protocol):
        """Calls a function in some network namespace."""

        def __call__(self, function: Callable[[], T], /) -> T: ...


# include/uapi/linux/netlink.h; the socket module does not know them. SOL_NETLINK: include/linux/socket.h.
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h

# Room for the errors of a block of which every message fails; the default limit is 208 KiB.
_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
# The kernel fills datagrams of a dump up to 32 KiB, or what the reader last offered.
_DATAGRAM_BYTES = 64 * 1024
_ANSWER_SECONDS = 10.0


def _stay(function: Callable[[], T], /) -> T:
    return function()


class LocalTransport:
    """Sockets in a network namespace, opened when a family is first used; a context manager."""

    def __init__(self, enter: Enter = _stay) -> None:
        """``enter`` chooses the namespace, by default the caller's; a socket stays where it was opened."""
        self._enter = enter
        self._sockets: dict[Family, socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets; the next exchange opens new ones."""
        while self._sockets:
            self._sockets.popitem()[1].close()

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """See ``Transport``.

        :raise HostError: the kernel refused the socket or the message.
        :raise DeadlineError: no answer.
        """
        return recorded("host", self._exchange, family, blocks)

    def _exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        for block in blocks:
            opened = self._sockets.get(family)
            if opened is None:
                opened = self._sockets[family] = self._enter(lambda: _open_socket(family))
            try:
                yield _exchange_one(opened, block) if not block.one_by_one else _exchange_each(opened, block)
            except BaseException:
                # A late answer must not be taken for the answer to a later request.
                self.close()
                raise

    @contextmanager
    def subscribe(self, family: Family, group: int) -> Iterator[Iterator[bytes]]:
        """Receive the notifications of a multicast group, one datagram at a time, from now on.

        :raise HostError: the kernel refused.
        :raise DeadlineError: (from the iterator) nothing came for 10 s.
        """
        opened = self._enter(lambda: open_notifications(family, [group]))
        try:
            opened.settimeout(_ANSWER_SECONDS)
            yield _datagrams(opened)
        finally:
            opened.close()


def open_notifications(family: Family, groups: Sequence[int]) -> socket:
    """A socket that receives the notifications of multicast groups and never waits (EAGAIN, ENOBUFS: netlink(7)).

    :raise HostError: the kernel refused.
    """
    opened = _open_socket(family)
    try:
        opened.setblocking(False)
        for group in groups:
            opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        opened.close()
        raise _refused(f"the netlink groups {groups}", error) from error
    return opened


def _open_socket(family: Family) -> socket:
    try:
        opened = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family)
    except OSError as error:
        raise _refused(f"a netlink socket of family {family.name}", error) from error
    try:
        try:
            opened.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except PermissionError:
            # An unprivileged caller only sends small requests, for which the default limit is enough.
            opened.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        opened.settimeout(_ANSWER_SECONDS)
        opened.bind((0, 0))
    except OSError as error:
        opened.close()
        raise _refused(f"a netlink socket of family {family.name}", error) from error
    return opened


def _exchange_one(opened: socket, block: Block) -> bytes:
    answer = bytearray()
    try:
        opened.send(block.data)
        while True:
            data = opened.recv(_DATAGRAM_BYTES)
            answer += data
            answer += bytes(align(len(answer)) - len(answer))
            if _ends(data, block.last_sequence):
                return bytes(answer)
    except TimeoutError as error:
        raise DeadlineError("the kernel's netlink answer", _ANSWER_SECONDS) from error
    except OSError as error:
        raise _refused("a netlink message", error) from error


def _exchange_each(opened: socket, block: Block) -> bytes:
    dumps = (
        block._replace(data=pack_message(kind, flags, sequence, payload), last_sequence=sequence)
        for kind, flags, sequence, payload in iter_messages(block.data)
    )
    return b"".join(_exchange_one(opened, dump) for dump in dumps)


def _ends(data: bytes, last_sequence: int) -> bool:
    return any(
        message.sequence == last_sequence and message.type in (NLMSG_ERROR, NLMSG_DONE)
        for message in iter_messages(data)
    )


def _datagrams(opened: socket) -> Iterator[bytes]:
    while True:
        try:
            yield opened.recv(_DATAGRAM_BYTES)
        except TimeoutError as error:
            raise DeadlineError("a netlink notification", _ANSWER_SECONDS) from error
        except OSError as error:
            raise _refused("netlink notifications", error) from error


def _refused(what: str, error: OSError) -> HostError:
    return HostError.of(f"this host's kernel refuses {what}", error)
