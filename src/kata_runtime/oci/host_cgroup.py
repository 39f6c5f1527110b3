"""The cgroup that an engine reserves on the host for a container: it accounts for QEMU, virtiofsd and shim.

No limit is set there: a container's limits are enforced in the guest, and its VM needs more than they allow.
"""

from __future__ import annotations

import os

from kata_runtime.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def cgroup_directories(cgroups_path: str, mountinfo: Iterable[str], *, systemd: bool) -> list[str]:
    """The directory of ``cgroupsPath`` in each mounted cgroup hierarchy (proc(5), mountinfo).

    With ``systemd`` it has the form ``slice:prefix:name``: the scope's directory is created without systemd.

    :raise InputError: it is invalid.
    """
    if not cgroups_path:
        return []
    path = _scope_path(cgroups_path) if systemd else cgroups_path
    parts = [part for part in path.split("/") if part]
    if not parts or ".." in parts:
        raise InputError(
            f"linux.cgroupsPath is {cgroups_path!a}",
            field="linux.cgroupsPath",
            hint="it must name a group below the root of the hierarchy, without '..'",
        )
    mounts: dict[str, None] = {}
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        # A new cpuset of version 1 accepts no process until its cpus and mems are set, and it counts nothing.
        if kind in ("cgroup", "cgroup2") and "cpuset" not in options.split(","):
            mounts[before.split(" ")[4]] = None
    return [os.path.join(mount, *parts) for mount in mounts]


def host_mountinfo() -> list[str]:
    """The lines of this process's /proc/self/mountinfo."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


def _scope_path(text: str) -> str:
    """The path of a scope in its slices: a-b.slice is in a.slice (systemd.slice(5))."""
    slice_name, separator, rest = text.partition(":")
    prefix, second, name = rest.partition(":")
    if not (separator and second and name):
        raise InputError(f"linux.cgroupsPath is {text!a}", hint="with --systemd-cgroup it is slice:prefix:name")
    levels = (slice_name or "system.slice").removesuffix(".slice").split("-")
    slices = [f"{'-'.join(levels[: count + 1])}.slice" for count in range(len(levels)) if levels[0]]
    return "/".join([*slices, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"])
