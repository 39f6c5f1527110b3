"""Notifications of changes in a network namespace (rtnetlink(7), multicast groups)."""

from __future__ import annotations

import errno

from kata_runtime.errors import HostError, ProtocolError
from kata_runtime.netlink.link import RTNLGRP_LINK
from kata_runtime.netlink.local import open_notifications
from kata_runtime.netlink.message import iter_messages
from kata_runtime.netlink.neighbour import RTM_NEWNEIGH, RTNLGRP_NEIGH, neighbours_of
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace

# include/uapi/linux/rtnetlink.h
_RTNLGRP_IPV4_IFADDR = 5
_RTNLGRP_IPV4_ROUTE = 7
_RTNLGRP_IPV6_IFADDR = 9
_RTNLGRP_IPV6_ROUTE = 11
_GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    _RTNLGRP_IPV4_IFADDR,
    _RTNLGRP_IPV4_ROUTE,
    _RTNLGRP_IPV6_IFADDR,
    _RTNLGRP_IPV6_ROUTE,
)
_DATAGRAM_BYTES = 64 * 1024
# Datagrams read at once: a namespace that changes without pause must not occupy its reader for ever.
_DATAGRAMS_MAX = 1000


class NamespaceWatch:
    """A socket that is readable when something may have changed; what has changed is found by a dump."""

    def __init__(self, namespace: Namespace) -> None:
        """Subscribe to the notifications of this thread's namespace.

        :raise HostError: the kernel refused.
        """
        self._socket = namespace.run(lambda: open_notifications(Family.ROUTE, _GROUPS))

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def drain(self) -> bool:
        """Read the datagrams that have arrived, without waiting; returns whether the namespace must be read again.

        :raise HostError: the socket failed.
        """
        worth = False
        for _ in range(_DATAGRAMS_MAX):
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return worth
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError.of("no more notifications of the network namespace", error) from error
                # Notifications were lost, and any of them may have mattered.
                worth = True
            else:
                worth = worth or _matters(datagram)
        return True


def _matters(datagram: bytes) -> bool:
    """Whether a datagram matters: all do but neighbours that the namespace's own stack learns and drops."""
    try:
        messages = list(iter_messages(datagram))
        return any(message.type != RTM_NEWNEIGH for message in messages) or any(
            neighbour.is_permanent for neighbour in neighbours_of(messages)
        )
    except ProtocolError:
        return True
