"""The cgroup that an engine reserves on the host for a container: it counts there what QEMU, virtiofsd and shim use.

No limit is set there: a container's limits hold in the guest, and the VM around it needs more than they say.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kata_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


def cgroup_directories(cgroups_path: str, mountinfo: Iterable[str], *, systemd: bool) -> list[str]:
    """Where ``cgroupsPath`` lies in each hierarchy of cgroups that is mounted (proc(5), mountinfo).

    With ``systemd`` it reads ``slice:prefix:name``: the scope of that name is made without asking systemd.

    :raise InputError: it names no place.
    """
    if not cgroups_path:
        return []
    path = _scope_path(cgroups_path) if systemd else cgroups_path
    parts = [part for part in path.split("/") if part]
    if not parts or ".." in parts:
        raise InputError(f"linux.cgroupsPath is {cgroups_path!a}", field="linux.cgroupsPath")
    mounts: dict[str, None] = {}
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        # A new cpuset of version 1 takes no process until it has processors and memory; nothing is counted there.
        if kind in ("cgroup", "cgroup2") and "cpuset" not in options.split(","):
            mounts[before.split(" ")[4]] = None
    return [os.path.join(mount, *parts) for mount in mounts]


def host_mountinfo() -> list[str]:
    """This process's mounts, a line each."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


def _scope_path(text: str) -> str:
    """systemd.slice(5): a-b.slice lies in a.slice."""
    slice_name, separator, rest = text.partition(":")
    prefix, second, name = rest.partition(":")
    if not (separator and second and name):
        raise InputError(f"linux.cgroupsPath is {text!a}", hint="with --systemd-cgroup it is slice:prefix:name")
    levels = (slice_name or "system.slice").removesuffix(".slice").split("-")
    slices = [f"{'-'.join(levels[: count + 1])}.slice" for count in range(len(levels)) if levels[0]]
    return "/".join([*slices, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"])
