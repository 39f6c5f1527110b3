"""Notices that something in a network namespace changed (rtnetlink(7), multicast groups)."""

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
# A namespace that changes without pause must not keep its reader from anything else.
_DATAGRAMS_MAX = 1000


class NamespaceWatch:
    """A descriptor that is readable when something may have changed; no datagram is trusted to tell what."""

    def __init__(self, namespace: Namespace) -> None:
        """Watch from now on.

        :raise HostError: the kernel refused.
        """
        self._socket = namespace.run(lambda: open_notifications(Family.ROUTE, _GROUPS))

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def drain(self) -> bool:
        """Read all that has come, without waiting; whether any of it is worth a look at the namespace.

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
                # Some were lost: they may have been the ones that matter.
                worth = True
            else:
                worth = worth or _matters(datagram)
        return True


def _matters(datagram: bytes) -> bool:
    """All but neighbours that the namespace's own stack learns and forgets."""
    try:
        messages = list(iter_messages(datagram))
        return any(message.type != RTM_NEWNEIGH for message in messages) or any(
            neighbour.is_permanent for neighbour in neighbours_of(messages)
        )
    except ProtocolError:
        return True
