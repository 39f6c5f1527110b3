"""Notifications of the guest's kernel that an agent's channel receives."""

from __future__ import annotations

import time

from kata_runtime import operation_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.guest.channel import AgentChannel


class Subscription:
    """Notifications of one netlink multicast group, from the moment it is made."""

    def __init__(self, channel: AgentChannel, request: int) -> None:
        self._channel = channel
        self._request = request

    def wait(self, accept: Callable[[bytes], bool], seconds: float, awaited: str) -> None:
        """Return when ``accept`` is true of a datagram.

        :raise DeadlineError: none came within ``seconds``; names ``awaited``.
        """
        deadline = time.monotonic() + seconds
        with operation_log.measured("netlink notification", awaited=awaited):
            while not accept(self._channel.next_notification(self._request, deadline, seconds, awaited)):
                continue
