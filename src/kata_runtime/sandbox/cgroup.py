"""Control groups for each sandbox, below the caller's (cgroups(7)).

The caller's limits still apply to the sandbox; its usage can be read, and it can be frozen or killed as a whole. It
joins the unified hierarchy, if mounted, and ``pids`` of version 1. Other controllers of version 1 are not used: the
caller's group limits and accounts for the sandbox already.
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


def group_directories(name: str) -> tuple[str, ...]:
    """The directories of control groups called ``name``; they need not exist, nor be creatable."""
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
    """Whether a control group can be created at ``directory``."""
    return os.access(os.path.dirname(directory), os.W_OK)


def join(directories: Iterable[str], pid: int, processes_max: int, *, counted: bool = False) -> None:
    """Create the groups and move a process into them; if the host refuses, it stays in its group.

    With ``counted``, as for groups that an engine reserves, groups of version 2 get every available controller.
    """
    for directory in directories:
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            if counted:
                _hand_on_controllers(directory)
            # In version 2 the file exists only if the parent group enables the controller.
            limit = os.path.join(directory, "pids.max")
            if os.path.exists(limit):
                _write(limit, processes_max)
            _write(os.path.join(directory, "cgroup.procs"), pid)
        except OSError:
            # cgroupfs is read-only in many containers; kata-check reports that.
            continue


def _hand_on_controllers(directory: str) -> None:
    """Enable in each group above ``directory`` all controllers for its children (cgroups(7), "cgroup.subtree_control").

    Version 1 has no such file. A group that contains processes itself refuses.
    """
    above = []
    group = os.path.dirname(directory)
    while os.path.exists(os.path.join(group, "cgroup.controllers")):
        above.append(group)
        group = os.path.dirname(group)
    for group in reversed(above):
        with open(os.path.join(group, "cgroup.controllers"), encoding="ascii") as file:
            controllers = file.read().split()
        for name in controllers:
            try:
                _write(os.path.join(group, "cgroup.subtree_control"), f"+{name}")
            except OSError:
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
                # A process leaves its groups a moment after its end is reported (Linux 6.18, cgroup_task_dead), and
                # version 1 has no event for that.
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    raise HostError.of(f"cannot remove {directory}", error) from error
                select.poll().poll(_RETRY_MILLISECONDS)
            else:
                break


def _write(path: str, value: int | str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(opened, str(value).encode())
    finally:
        os.close(opened)
