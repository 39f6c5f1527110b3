"""What the guest does before crun creates a container: file systems are mounted, sysctls set, paths looked up.

It runs in the process that then executes crun: a file system of the host that does not answer blocks only that process.
A shell would take 0.1 s for it without KVM, since everything that runs for the first time in a VM costs most.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from kata_runtime.guest.agent import libc
from kata_runtime.guest.agent.sysctl import access_sysctl

CRUN = "/usr/bin/crun"
CGROUP_ROOT = "/sys/fs/cgroup"
_CRUN_DIRECTORY = "/run/kata-agent/crun"
_DROP_CACHES = "/proc/sys/vm/drop_caches"
_MOUNTS = "/proc/self/mounts"


class Mount(NamedTuple):
    """A file system to mount unless something is mounted at ``target``; ``flags`` and ``options`` as in mount(2)."""

    source: str
    target: str
    kind: str
    flags: int
    options: str


class Setup(NamedTuple):
    """What comes before crun: ``paths`` are looked up, so that the kernel mounts what is behind them.

    ``forgets_names``: the kernel drops the names that it has cached first.
    """

    mounts: tuple[Mount, ...] = ()
    paths: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    forgets_names: bool = False


def parse_setup(document: dict[str, object]) -> Setup:
    """Decode the ``setup`` of a CREATE request.

    :raise ValueError, KeyError, TypeError: it has other keys or types than ``wire`` says.
    """
    mounts, paths, sysctls = document["mounts"], document["paths"], document["sysctls"]
    if not (isinstance(mounts, list) and isinstance(paths, list) and isinstance(sysctls, list)):
        raise TypeError("mounts, paths and sysctls must be lists")
    return Setup(
        tuple(Mount(*mount) for mount in mounts),
        tuple(map(str, paths)),
        tuple((str(name), str(value)) for name, value in sysctls),
        bool(document["forgets_names"]),
    )


def set_up(setup: Setup) -> None:
    """Carry out a setup.

    :raise OSError: the kernel refused; its third argument says what.
    """
    _prepare_guest()
    if setup.forgets_names:
        # "2" drops the caches of names and inodes (Documentation/admin-guide/sysctl/vm.rst, drop_caches).
        _write(_DROP_CACHES, b"2")
    for mount in setup.mounts:
        if not _is_mounted(mount.target):
            os.makedirs(mount.target, exist_ok=True)
            libc.mount(*mount)
    for name, value in setup.sysctls:
        try:
            access_sysctl(name.encode(), value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"sysctl {name}") from None
    for path in setup.paths:
        # What is no directory, or does not exist, is crun's to report.
        try:
            os.stat(f"{path}/.")
        except OSError:
            continue


def _prepare_guest() -> None:
    """Mount the control groups and a read-only crun; errors are crun's to report."""
    try:
        if not os.path.exists(f"{CGROUP_ROOT}/cgroup.procs"):
            libc.mount("cgroup", CGROUP_ROOT, "cgroup2", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "")
        if not os.statvfs(CRUN).f_flag & os.ST_RDONLY:
            _mount_crun()
    except OSError:
        return


def _mount_crun() -> None:
    """Mount a copy of crun on crun, read-only: otherwise it copies and executes itself twice before each command.

    That protects its file from containers (CVE-2019-5736), as a read-only mount does. But the initrd's files are in a
    tmpfs, of which it accepts only sealed ones (cloned_binary.c, F_GET_SEALS), and those cannot be mounted.

    :raise OSError: the kernel refused.
    """
    copy = f"{_CRUN_DIRECTORY}/crun"
    os.makedirs(_CRUN_DIRECTORY, exist_ok=True)
    libc.mount("crun", _CRUN_DIRECTORY, "ramfs", 0, "mode=755")
    with open(CRUN, "rb") as program, open(copy, "wb") as file:
        file.write(program.read())
    os.chmod(copy, 0o755)
    libc.mount(copy, CRUN, "", libc.MS_BIND, "")
    libc.mount("", CRUN, "", libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY, "")
    libc.detach(_CRUN_DIRECTORY)
    os.rmdir(_CRUN_DIRECTORY)


def _is_mounted(target: str) -> bool:
    with open(_MOUNTS, "rb") as file:
        return any(line.split(b" ")[1] == os.fsencode(target) for line in file)


def _write(path: str, data: bytes) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(opened, data)
    finally:
        os.close(opened)
