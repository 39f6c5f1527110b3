"""Confinement of a sandbox's processes: no capabilities, no network, limited resources, a user of their own."""

from __future__ import annotations

import os
import resource
import sys

from kata_runtime.c_library import c_function
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# include/uapi/linux/prctl.h, securebits.h, sched.h and capability.h
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
# struct __user_cap_header_struct; two of struct __user_cap_data_struct.
_HEADER_BYTES, _CAPABILITY_BYTES = 8, 24
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


class Calls(NamedTuple):
    """Functions of the C library that Python 3.11 lacks."""

    unshare: Callable[..., int]
    prctl: Callable[..., int]
    capset: Callable[..., int]


def load_calls() -> Calls:
    """To be loaded before a fork: the child of a process with threads may only make system calls (fork(2))."""
    return Calls(c_function("unshare"), c_function("prctl"), c_function("capset"))


def confine(confinement: Confinement, calls: Calls) -> None:
    """Drop all other rights of the calling process, which is about to execute a program.

    :raise OSError: the kernel refused; its third argument names the step.
    """
    # An empty network namespace. A TAP or socket that is passed as a descriptor stays in its own namespace and so
    # still works, and Unix sockets are reached by the file system.
    _call("an empty network namespace", calls.unshare, _CLONE_NEWNET)
    for kind, value in confinement.limits:
        _, hard = resource.getrlimit(kind)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))
    with open(_LAST_CAPABILITY, "rb") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _call("dropping a capability", calls.prctl, _PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(list(confinement.groups))
    os.setresgid(confinement.user, confinement.user, confinement.user)
    os.setresuid(confinement.user, confinement.user, confinement.user)
    _drop_capabilities(calls)
    _call("forbidding new privileges", calls.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def keep_capabilities(calls: Calls) -> None:
    """Let the calling process, and what it executes, keep its capabilities when it changes its user (capabilities(7)).

    :raise OSError: the kernel refused; its third argument names the step.
    """
    _call("keeping capabilities", calls.prctl, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)


def _drop_capabilities(calls: Calls) -> None:
    # Changing the user clears the effective and permitted sets (capabilities(7)), but not the inheritable one.
    header = _CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(_HEADER_BYTES - 4)
    _call("dropping capabilities", calls.capset, header, bytes(_CAPABILITY_BYTES))


def _call(what: str, function: Callable[..., int], *arguments: int | bytes) -> None:
    try:
        function(*arguments)
    except OSError as error:
        raise OSError(error.errno, error.strerror, what) from None
