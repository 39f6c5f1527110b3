"""Control groups of a sandbox's own, below the caller's (cgroups(7)).

The caller's limits go on to hold for the sandbox; what it uses can be seen, and all of it frozen or killed. The unified
hierarchy is joined where it is mounted, and ``pids`` of version 1. Others of version 1 are left alone: their limits
and accounting are the caller's, and a group of its own would change neither.
"""

from __future__ import annotations

import errno
import os
import select
import time

from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_END_SECONDS = 2.0
_RETRY_MILLISECONDS = 5


def places(name: str) -> tuple[str, ...]:
    """The directories of control groups called ``name``, whether they exist or can be made, or not."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        own = {controllers: path for _, controllers, path in (line.rstrip("\n").split(":", 2) for line in lines)}
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            controllers = {"cgroup2": "", "cgroup": "pids" if "pids" in options.split(",") else None}.get(kind)
            path = None if controllers is None else own.get(controllers)
            root, mounted = before.split()[3:5]
            if path is not None and path.startswith(root.rstrip("/")):
                found.append(os.path.join(mounted, path[len(root.rstrip("/")) :].lstrip("/"), name))
    return tuple(dict.fromkeys(found))


def writable(directory: str) -> bool:
    """Whether a control group can be made at ``directory``."""
    return os.access(os.path.dirname(directory), os.W_OK)


def join(directories: Iterable[str], pid: int, processes_max: int) -> None:
    """Make the groups and move a process there; where the host does not let us, it stays where it is."""
    for directory in directories:
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            # Version 2 has it only where the parent group hands it on.
            limit = os.path.join(directory, "pids.max")
            if os.path.exists(limit):
                _write(limit, processes_max)
            _write(os.path.join(directory, "cgroup.procs"), pid)
        except OSError:
            # Read-only in many containers; kata-check tells.
            continue


def remove(directories: Sequence[str]) -> None:
    """Remove the groups, whose processes have ended.

    :raise HostError: one is in use.
    """
    end = time.monotonic() + _END_SECONDS
    for directory in directories:
        while True:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError as error:
                # A process leaves its groups a moment after its end is told (Linux 6.18, cgroup_task_dead), and version
                # 1 has no event for that.
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    raise HostError.of(f"cannot remove {directory}", error) from error
                select.poll().poll(_RETRY_MILLISECONDS)
            else:
                break


def _write(path: str, number: int) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(opened, b"%d" % number)
    finally:
        os.close(opened)
