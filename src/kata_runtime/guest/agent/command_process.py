"""Runs a command in the guest for the host that is connected to an exec port."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest import wire
from kata_runtime.guest.agent import libc
from kata_runtime.guest.agent.process_streams import Streams, close_all, make_pipes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from kata_runtime.guest.agent.children import Children
    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.job import Owner

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "dumb",
}
# By the interpreter when it starts, and by the agent.
_CHANGED_SIGNALS = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)
_ALL_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


class Command(NamedTuple):
    """The argument vector of a program, and whether its addresses are the same each time.

    TCG finds translated code by its virtual address: what runs at random ones is translated anew each time, which is
    more than half of what a short crun command costs (QEMU 7.2). Programs that it executes inherit that.
    """

    argv: list[str]
    fixed_addresses: bool = False

    def addresses(self) -> AbstractContextManager[None]:
        """A block for its execution, in which addresses are as it wants them."""
        return libc.fixed_addresses() if self.fixed_addresses else nullcontext()


def spawn(command: Command, descriptors: Sequence[int]) -> int:
    """Start a program in a session of its own with ``descriptors`` as 0, 1 and 2; return its pid.

    :raise OSError: it cannot be started (ENOENT, EACCES, E2BIG).
    """
    with command.addresses():
        return os.posix_spawnp(
            command.argv[0],
            command.argv,
            _ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(descriptors)],
            setsid=True,
            setsigdef=_ALL_SIGNALS,
            setsigmask=[],
        )


def spawn_prepared(prepare: Callable[[], None], command: Command, descriptors: Sequence[int]) -> int:
    """``spawn`` of a program by its path, with ``prepare`` called in the child process first.

    An OSError in the child is written to its standard error, and its exit status is 1.

    :raise OSError: no process can be created.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        for changed in _CHANGED_SIGNALS:
            signal.signal(changed, signal.SIG_DFL)
        os.setsid()
        for number, end in enumerate(descriptors):
            os.dup2(end, number)
        prepare()
        with command.addresses():
            os.execve(command.argv[0], command.argv, _ENVIRONMENT)
    except OSError as error:
        text = f"the guest cannot set up {error.filename}: {error.strerror}"
        os.write(2, text.encode(errors="surrogateescape"))
    finally:
        os._exit(1)


def parse_command(payload: bytes) -> Command:
    """Decode the payload of an EXEC frame.

    :raise ValueError, KeyError, TypeError: it is not JSON with a list of strings as ``argv``.
    """
    document = json.loads(payload)
    argv = document["argv"]
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise ValueError("argv must be a list of strings")
    return Command(argv, bool(document.get("fixed_addresses")))


class Process:
    """A child process with three pipes. Its pid cannot be reused before it is reaped, which only ``Children`` does."""

    def __init__(self, port: Port, request: int, command: Command, children: Children, owner: Owner) -> None:
        """Start ``command``.

        :raise OSError: it cannot be started.
        """
        ours, theirs = make_pipes()
        try:
            self._pid = spawn(command, theirs)
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
        """The three pipes."""
        return self._streams

    def finish(self, status: int) -> None:
        """Send the exit status to the host."""
        self._streams.finish(status)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self._pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Do nothing: pipes have no size."""
        del rows, columns

    def hang_up(self) -> None:
        """The host has disconnected: end the process group as a terminal that closes does."""
        self._streams.abandon()
        for number in (signal.SIGHUP, signal.SIGCONT):
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                return
