"""Entering and creating network namespaces by setns(2) and unshare(2), which Python 3.11 lacks."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


def enter_network_namespace(path: str) -> None:
    """Move this thread into the network namespace at ``path``. :raise HostError: the kernel refused."""
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError.of(f"cannot open the network namespace {path}", error) from None
    try:
        if _libc().setns(namespace, _CLONE_NEWNET):
            raise _refused(f"enter the network namespace {path}")
    finally:
        os.close(namespace)


def new_network_namespace() -> None:
    """Move this thread into a new network namespace. :raise HostError: the kernel refused."""
    if _libc().unshare(_CLONE_NEWNET):
        raise _refused("make a network namespace")


def _libc() -> CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _refused(what: str) -> HostError:
    import ctypes

    return HostError.of(f"cannot {what}", OSError(ctypes.get_errno(), ""))
