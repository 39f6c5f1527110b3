"""Bind mounts of this host: mount(2) and umount2(2), which Python lacks, and a list of existing mounts."""

from __future__ import annotations

import os
import struct

from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from ctypes import CDLL

# include/uapi/linux/mount.h: the flags MOUNT_ATTR_* of a mount, and those of mount(2) and umount2(2).
_ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MS_PRIVATE, _MS_SHARED = 1 << 18, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
# include/uapi/asm-generic/unistd.h; the same on all architectures since Linux 5.1.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
# include/uapi/linux/fcntl.h
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: set, clear, propagation, user namespace


def bind(source: str, target: str, options: Sequence[str] = (), *, recursive: bool = True) -> None:
    """Bind ``source`` at ``target``; of ``options``, ro, nosuid, nodev and noexec are applied to the mount.

    The flags are set before the mount is attached: later ones would not propagate to its copy that the guest is served.

    :raise HostError: the kernel refused; it must be Linux 5.12 or later.
    """
    what = f"bind {source} at {target}"
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _call(what, _OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        wanted = 0
        for option in options:
            wanted |= _ATTRIBUTES.get(option, 0)
        if wanted:
            _call(what, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, _ATTR.pack(wanted, 0, 0, 0), _ATTR.size)
        _call(what, _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def make_shared(target: str) -> None:
    """Make the mount at ``target`` shared (mount_namespaces(7)). :raise HostError: the kernel refused."""
    # Private first: a bind mount of a shared mount would otherwise stay in that one's peer group.
    _propagate(target, _MS_PRIVATE)
    _propagate(target, _MS_SHARED)


def detach(target: str) -> None:
    """Unmount ``target`` and everything below it, even if it is in use. :raise HostError: the kernel refused."""
    if _libc().umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        raise _refused(f"unmount {target}")


def mounts_below(directory: str) -> list[str]:
    """The mount points at and below ``directory``, in the order of mounting (proc(5), mountinfo)."""
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            point = os.fsdecode(_unescaped(line.split(b" ")[4]))
            if point == directory or point.startswith(f"{directory}/"):
                found.append(point)
    return found


def _unescaped(text: bytes) -> bytes:
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(code, character)
    return text


def _propagate(target: str, flags: int) -> None:
    import ctypes

    if _libc().mount(b"none", os.fsencode(target), None, ctypes.c_ulong(flags), None):
        raise _refused(f"share the mounts below {target}")


def _call(what: str, number: int, *arguments: int | bytes) -> int:
    import ctypes

    converted = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *converted))
    if result < 0:
        raise _refused(what)
    return result


def _libc() -> CDLL:
    import ctypes  # takes 10 ms, and most commands mount nothing

    return ctypes.CDLL(None, use_errno=True)


def _refused(what: str) -> HostError:
    import ctypes

    return HostError.of(f"cannot {what}", OSError(ctypes.get_errno(), ""))


def remove_mounts(directory: str) -> None:
    """Unmount everything at and below ``directory``.

    :raise HostError: a mount remains.
    """
    directory = os.path.realpath(directory)
    while found := mounts_below(directory):
        # In reverse order: later mounts can cover earlier ones.
        detach(found[-1])
