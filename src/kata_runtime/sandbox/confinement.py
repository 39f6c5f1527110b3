"""Confinement of a sandbox's processes: no capabilities, no network, limited resources, a user of their own."""

from __future__ import annotations

import os
import resource

from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from ctypes import CDLL

# include/uapi/linux/prctl.h, securebits.h, sched.h and capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"

# Open files: 32 NICs of 256 queue pairs with two descriptors each; everything else takes fewer than 100.
_OPEN_FILES = 32 * 256 * 2 + 1024
# Locked memory: QEMU locks none itself, but kernels before 5.12 count the rings of io_uring(7) as locked.
_LOCKED_BYTES = 8 * 1024 * 1024
# Threads besides one for each vCPU: QEMU's thread pool has up to 64, and vhost-net one for each queue pair.
THREADS = 1024


class Confinement(NamedTuple):
    """User, groups and limits of a process. ``groups[0]`` is its primary group; soft and hard limits are the same."""

    user: int
    groups: Sequence[int]
    limits: Sequence[tuple[int, int]]


def confinement_of(user: int, groups: Sequence[int], *, vcpus: int, user_is_shared: bool) -> Confinement:
    """The confinement of QEMU. RLIMIT_NPROC counts all processes of a user, and so is not set for a shared user."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_MEMLOCK, _LOCKED_BYTES),
    ]
    if not user_is_shared:
        limits.append((resource.RLIMIT_NPROC, vcpus + THREADS))
    return Confinement(user, groups, limits)


def load_libc() -> CDLL:
    """The C library, for functions that Python 3.11 lacks; loaded before a fork, since importing ctypes takes 10 ms."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def confine(confinement: Confinement, libc: CDLL) -> None:
    """Drop all other rights of the calling process, which is about to execute a program.

    :raise OSError: the kernel refused; its third argument names the step.
    """
    # An empty network namespace. A TAP or socket that is passed as a descriptor stays in its own namespace and so
    # still works, and Unix sockets are reached by the file system.
    _check(libc.unshare(_CLONE_NEWNET), "an empty network namespace")
    for kind, value in confinement.limits:
        _, hard = resource.getrlimit(kind)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))
    with open(_LAST_CAPABILITY, "rb") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "dropping a capability")
    os.setgroups(list(confinement.groups))
    os.setresgid(confinement.user, confinement.user, confinement.user)
    os.setresuid(confinement.user, confinement.user, confinement.user)
    _drop_capabilities(libc)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "forbidding new privileges")


def keep_capabilities(libc: CDLL) -> None:
    """Let the calling process, and what it executes, keep its capabilities when it changes its user (capabilities(7)).

    :raise OSError: the kernel refused; its third argument names the step.
    """
    _check(libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "keeping capabilities")


def _drop_capabilities(libc: CDLL) -> None:
    # Changing the user clears the effective and permitted sets (capabilities(7)), but not the inheritable one.
    import ctypes

    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(libc.capset(header, none), "dropping capabilities")


def _check(result: int, what: str) -> None:
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
