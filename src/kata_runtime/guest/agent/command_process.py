"""One command that runs in the guest for a host that holds an exec port."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from kata_runtime.guest import wire
from kata_runtime.guest.agent.process_streams import Streams, close_all, make_pipes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.guest.agent.children import Children
    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.job import Owner

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "dumb",
}
_ALL_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


def spawn(argv: list[str], descriptors: Sequence[int]) -> int:
    """Start ``argv`` in a session of its own with ``descriptors`` as 0, 1 and 2; its pid.

    :raise OSError: it cannot be started (ENOENT, EACCES, E2BIG).
    """
    return os.posix_spawnp(
        argv[0],
        argv,
        _ENVIRONMENT,
        file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(descriptors)],
        setsid=True,
        setsigdef=_ALL_SIGNALS,
        setsigmask=[],
    )


def parse_argv(payload: bytes) -> list[str]:
    """The argument vector of an EXEC frame.

    :raise ValueError: when it is not JSON of the agreed shape.
    """
    argv = json.loads(payload)["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("argv must be a list of strings")
    return argv


class Process:
    """A child with three pipes. Its pid means it until it is reaped, which happens in ``Children`` alone."""

    def __init__(self, port: Port, request: int, argv: list[str], children: Children, owner: Owner) -> None:
        """Start ``argv``.

        :raise OSError: when it cannot be started.
        """
        ours, theirs = make_pipes()
        try:
            self._pid = spawn(argv, theirs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        stdin, stdout, stderr = ours
        self._streams = Streams(port, request, stdin, {stdout: wire.STDOUT, stderr: wire.STDERR})
        port.send(wire.STARTED, request, wire.pack_count(self._pid))
        children.expect(self._pid, lambda status: owner.ended(self, status))

    @property
    def streams(self) -> Streams:
        """Its three pipes."""
        return self._streams

    def finish(self, status: int) -> None:
        """Send the exit status to the host."""
        self._streams.finish(status)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self._pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Pipes have no size."""
        del rows, columns

    def hang_up(self) -> None:
        """The host is gone: end the process's session as a terminal that closes would."""
        self._streams.abandon()
        for number in (signal.SIGHUP, signal.SIGCONT):
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                return
