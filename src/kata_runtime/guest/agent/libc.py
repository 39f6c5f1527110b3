"""System calls that Python's standard library lacks, by the C library.

ctypes is imported with the first of them: that takes 0.1 s and 1 MB, and only guests with containers need it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ctypes import CDLL

# include/uapi/linux/mount.h and prctl.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_PR_SET_CHILD_SUBREAPER = 36
_MNT_DETACH = 2
_ADDR_NO_RANDOMIZE = 0x0040000  # include/uapi/linux/personality.h


def become_subreaper() -> None:
    """Make the orphans of this process's children its own children (prctl(2)).

    :raise OSError: the kernel refused.
    """
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """Mount a file system (mount(2)).

    :raise OSError: the kernel refused; its third argument is the target.
    """
    words = [os.fsencode(word) for word in (source, target, kind)]
    _check(_libc().mount(*words, flags, os.fsencode(options)), target)


def detach(target: str) -> None:
    """Unmount a file system when nothing uses it any more (umount2(2), MNT_DETACH).

    :raise OSError: the kernel refused; its third argument is the target.
    """
    _check(_libc().umount2(os.fsencode(target), _MNT_DETACH), target)


@contextmanager
def fixed_addresses() -> Iterator[None]:
    """Programs that are executed in this block get the same addresses each time (personality(2), ADDR_NO_RANDOMIZE)."""
    before = _libc().personality(_ADDR_NO_RANDOMIZE)
    try:
        yield
    finally:
        _libc().personality(before)


@cache
def _libc() -> CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
