"""Reaps all child processes of the agent, including adopted orphans, and reports their exit status."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from kata_runtime.guest.agent.libc import become_subreaper

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.guest.agent.loop import Loop

    Ended = Callable[[int], None]

_WAKEUP_BYTES = 4096
# Far more than the processes that can end in the second that it takes to create a container.
_UNCLAIMED_MAX = 4096


class Children:
    """The only caller of waitpid(2), since orphans of containers become children of the agent at any time.

    Statuses are as os.waitstatus_to_exitcode gives them.
    """

    def __init__(self, loop: Loop) -> None:
        self._expected: dict[int, Ended] = {}
        self._unclaimed: dict[int, int] = {}
        self._adoptions = 0
        self._is_subreaper = False
        self._wakeup, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        loop.watch(self._wakeup, select.EPOLLIN, self._reap)

    def expect(self, pid: int, ended: Ended) -> None:
        """Call ``ended`` with the status of ``pid``, a process that the agent itself started."""
        self._unclaimed.pop(pid, None)  # of an orphan that had the same pid before
        self._expected[pid] = ended

    def adopt(self, pid: int, ended: Ended) -> None:
        """Call ``ended`` with the status of ``pid``, an orphan; at once if it has been reaped already."""
        status = self._unclaimed.pop(pid, None)
        if status is None:
            self._expected[pid] = ended
        else:
            ended(status)

    def begin_adoption(self) -> None:
        """Become the parent of orphans (prctl(2), PR_SET_CHILD_SUBREAPER); keep their statuses until ``end_adoption``.

        A container's first process can end before the agent knows its pid.

        :raise OSError: the kernel refused.
        """
        if not self._is_subreaper:
            become_subreaper()
            self._is_subreaper = True
        self._adoptions += 1

    def end_adoption(self) -> None:
        """End what ``begin_adoption`` began: the caller has called ``adopt``, or there is nothing to adopt."""
        self._adoptions -= 1
        if not self._adoptions:
            self._unclaimed.clear()

    def _reap(self) -> None:
        try:
            os.read(self._wakeup, _WAKEUP_BYTES)
        except BlockingIOError:
            return
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            ended = self._expected.pop(pid, None)
            if ended is not None:
                ended(code)
            elif self._adoptions:
                self._unclaimed[pid] = code
                if len(self._unclaimed) > _UNCLAIMED_MAX:
                    del self._unclaimed[next(iter(self._unclaimed))]


def _ignore(number: int, frame: object) -> None:
    # A handler is needed for the byte in the wake-up pipe, which notifies the loop.
    del number, frame
