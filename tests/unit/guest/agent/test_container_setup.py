"""What the agent's child does before it executes crun, and how it reports a failure."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.guest.agent.command_process import Command, spawn_prepared
from kata_runtime.guest.agent.container_setup import Mount, Setup, parse_setup
from kata_runtime.guest.agent.process_streams import close_all, make_pipes

if TYPE_CHECKING:
    from collections.abc import Callable

_DOCUMENT: dict[str, object] = {
    "mounts": [["t", "/m", "virtiofs", 0, ""]],
    "paths": ["/m/a"],
    "sysctls": [["net/a", "1"]],
    "forgets_names": True,
}


def _outcome(prepare: Callable[[], None], *argv: str) -> tuple[int, bytes, bytes]:
    """Exit status and outputs of a program that was spawned after ``prepare``."""
    (stdin, stdout, stderr), theirs = make_pipes()
    pid = spawn_prepared(prepare, Command(list(argv)), theirs)
    close_all([stdin, *theirs])
    _, status = os.waitpid(pid, 0)
    outputs = os.read(stdout, 4096), os.read(stderr, 4096)
    close_all([stdout, stderr])
    return os.waitstatus_to_exitcode(status), *outputs


def _inherited_ignored_signals() -> int:
    """Mask of the signals that whoever started the tests ignores, without those that a program gets back.

    Those are the ones that the interpreter changes. The agent's parent is init, which ignores none. A shell lets its
    programs in the background ignore SIGINT and SIGQUIT, nohup(1) SIGHUP, and posix_spawn(3) can leave glibc's own two
    signals, 32 and 33, ignored, which Python cannot name.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (ignored,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    return ignored & ~sum(1 << number - 1 for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ))


def _refuse() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/m")


def test_decoded() -> None:
    """A setup keeps its mounts, paths and sysctls in their order."""
    assert parse_setup(_DOCUMENT) == Setup(
        (Mount("t", "/m", "virtiofs", 0, ""),), ("/m/a",), (("net/a", "1"),), forgets_names=True
    )


@pytest.mark.parametrize(
    "change",
    [{"mounts": {}}, {"mounts": [["t", "/m"]]}, {"paths": "/m"}, {"sysctls": {"a": "b"}}, {"sysctls": [["a"]]}],
    ids=str,
)
def test_refused(change: dict[str, object]) -> None:
    """A setup of another shape is an error that the agent reports, not one that ends it."""
    with pytest.raises((TypeError, ValueError)):
        parse_setup(_DOCUMENT | change)


def test_missing_part() -> None:
    """So is one without one of its parts."""
    with pytest.raises(KeyError):
        parse_setup({key: value for key, value in _DOCUMENT.items() if key != "paths"})


def test_program_after_preparation() -> None:
    """The program runs in the prepared process, in a session of its own, with the agent's environment and signals."""
    script = 'ps -o sid= -p $$ | grep -q "^ *$$\\$" && pwd >&2; echo $TERM; exec grep SigIgn /proc/self/status'
    assert _outcome(lambda: os.chdir("/usr"), "/bin/sh", "-c", script) == (
        0, b"dumb\nSigIgn:\t%016x\n" % _inherited_ignored_signals(), b"/usr\n",
    )  # fmt: skip


def test_failed_preparation() -> None:
    """A failure before the program is reported with what could not be set up, and the program does not run."""
    assert _outcome(_refuse, "/bin/echo", "ran") == (
        1, b"", b"the guest cannot set up /run/m: No space left on device",
    )  # fmt: skip
