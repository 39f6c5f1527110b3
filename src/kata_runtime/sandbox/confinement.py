"""What a process of a sandbox may still do: no capabilities, no network, bounded resources, a user of its own."""

from __future__ import annotations

import os
import resource

from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from ctypes import CDLL

# include/uapi/linux/prctl.h, sched.h and capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"

# Every NIC of 32 may have 256 queue pairs with two descriptors each; sockets and the rest take fewer than 100.
_OPEN_FILES = 32 * 256 * 2 + 1024
# QEMU locks no memory of its own; io_uring(7) of kernels before 5.12 counted its rings here.
_LOCKED_BYTES = 8 * 1024 * 1024
# Besides a thread for each vCPU: QEMU's thread pool has up to 64, and vhost-net one for each queue pair.
THREADS = 1024


class Confinement(NamedTuple):
    """``groups`` include the first one; ``limits`` are soft and hard limits of setrlimit(2) at once."""

    user: int
    groups: Sequence[int]
    limits: Sequence[tuple[int, int]]


def confinement_of(user: int, groups: Sequence[int], *, vcpus: int, user_is_shared: bool) -> Confinement:
    """What QEMU gets; a limit of processes counts by user, so there is none for a user that others have, too."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_MEMLOCK, _LOCKED_BYTES),
    ]
    if not user_is_shared:
        limits.append((resource.RLIMIT_NPROC, vcpus + THREADS))
    return Confinement(user, groups, limits)


def load_libc() -> CDLL:
    """The C library, for what Python 3.11 does not offer; loaded before a fork, since ctypes takes 10 ms."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def confine(confinement: Confinement, libc: CDLL) -> None:
    """Give up everything else, in a process that is about to execute a program.

    :raise OSError: the kernel refused; its third argument says what.
    """
    # A TAP or a socket that comes as a descriptor stays in its own namespace, and so works as before; sockets at
    # paths belong to the file system. What is left of QEMU's own spec to speak to a network leads nowhere.
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


def _drop_capabilities(libc: CDLL) -> None:
    # The change of user clears the effective and permitted set (capabilities(7)), not the inheritable one.
    import ctypes

    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    _check(libc.capset(header, none), "dropping capabilities")


def _check(result: int, what: str) -> None:
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
