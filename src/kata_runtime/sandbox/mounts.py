"""Mounts of this host: mount(2), umount2(2) and their relatives, which Python lacks, and a list of existing mounts."""

from __future__ import annotations

import os
import struct

from kata_runtime.c_library import c_function
from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# include/uapi/linux/mount.h: the flags MOUNT_ATTR_* of a mount, and those of mount(2) and umount2(2).
_ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MS_RDONLY, _MS_REC, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED = 1, 1 << 14, 1 << 18, 1 << 19, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
# include/uapi/asm-generic/unistd.h; the same on all architectures since Linux 5.1.
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 1, 4, 0x40
_RESOLVE_IN_ROOT = 0x10  # include/uapi/linux/openat2.h
_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h
# include/uapi/linux/fcntl.h
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_KERNEL_TREES = ("/proc", "/sys", "/dev")
_ATTR = struct.Struct("=QQQQ")  # struct mount_attr: set, clear, propagation, user namespace
_OPEN_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve


def bind(source: str, target: str, options: Sequence[str] = (), *, recursive: bool = True) -> None:
    """Bind ``source`` at ``target``; of ``options``, ro, nosuid, nodev and noexec are applied to the mount.

    The flags are set before the mount is attached: later ones would not propagate to its copy that the guest is served.

    :raise HostError: the kernel refused; it must be Linux 5.12 or later.
    """
    what = f"bind {source} at {target}"
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _system_call(what, _OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        wanted = 0
        for option in options:
            wanted |= _ATTRIBUTES.get(option, 0)
        if wanted:
            _system_call(what, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, _ATTR.pack(wanted, 0, 0, 0), _ATTR.size)
        _system_call(what, _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def mount_overlay(target: str, options: Sequence[str]) -> None:
    """Mount an overlay of directories of this host, named in ``options`` (Documentation/filesystems/overlayfs.rst).

    :raise HostError: the kernel refused.
    """
    # mount(2): a page, with the byte at its end.
    data = os.fsencode(",".join(options))
    if len(data) >= os.sysconf("SC_PAGE_SIZE"):
        raise HostError(f"the options of the overlay at {target} are too long: {len(data)} bytes")
    _call(f"mount an overlay at {target}", "mount", b"overlay", os.fsencode(target), b"overlay", 0, data)


def enter_own_mounts() -> None:
    """Move this process into a mount namespace of its own.

    Where the host's mounts are shared (mount_namespaces(7)), what it mounts and unmounts later propagates there.

    :raise HostError: the kernel refused.
    """
    _call("make a mount namespace", "unshare", _CLONE_NEWNS)
    _propagate("/", _MS_REC | _MS_SLAVE)


def detach_private(kept: Sequence[str]) -> None:
    """Unmount what would stay mounted here when the host unmounts it, such as others' file systems and namespaces.

    Mounts on the way to the paths in ``kept`` stay, and those below /proc, /sys and /dev.
    """
    for point, is_slave in reversed(_mount_points()):
        leads_there = any(_is_within(path, point) for path in kept)
        if not is_slave and not leads_there and not any(_is_within(point, tree) for tree in _KERNEL_TREES):
            with suppress(HostError):  # it is hidden below another mount, or gone with that
                detach(point)


def copy_tree(source: str, *, read_only: bool = False) -> int:
    """A copy of ``source`` with the mounts below it, not mounted anywhere yet; nothing propagates from it to the host.

    ``read_only`` applies to ``source`` alone. The descriptor, which the caller closes, stands for its root.

    :raise HostError: the kernel refused; it must be Linux 5.12 or later.
    """
    what = f"copy {source}"
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    tree = _system_call(what, _OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        attributes = _ATTR.pack(0, 0, _MS_SLAVE, 0)
        _system_call(
            f"copy {source}", _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, _ATTR.size
        )
        if read_only:
            attributes = _ATTR.pack(_ATTRIBUTES["ro"], 0, 0, 0)
            _system_call(what, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, _ATTR.size)
    except BaseException:
        os.close(tree)
        raise
    return tree


def attach_tree(tree: int, target: int) -> None:
    """Mount a copy on the file or directory that the descriptor ``target`` stands for. :raise HostError: refused."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _system_call("mount a copy", _MOVE_MOUNT, tree, b"", target, b"", flags)


def attach_nothing(target: int) -> None:
    """Mount an empty read-only file system on the directory that ``target`` stands for. :raise HostError: refused."""
    where = b"/proc/self/fd/%d" % target
    _call("mount an empty file system", "mount", b"nothing", where, b"tmpfs", _MS_RDONLY, b"mode=555")


def open_within(root: int, path: str) -> int:
    """Open what ``path`` names for a process whose root is ``root``, as O_PATH; symbolic links do not lead out.

    :raise HostError: there is no such path.
    """
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    return _system_call(f"open {path}", _OPENAT2, root, os.fsencode(path), how, _OPEN_HOW.size)


def make_shared(target: str) -> None:
    """Make the mount at ``target`` shared (mount_namespaces(7)). :raise HostError: the kernel refused."""
    # Private first: a bind mount of a shared mount would otherwise stay in that one's peer group.
    _propagate(target, _MS_PRIVATE)
    _propagate(target, _MS_SHARED)


def detach(target: str) -> None:
    """Unmount ``target`` and everything below it, even if it is in use. :raise HostError: the kernel refused."""
    _call(f"unmount {target}", "umount2", os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW)


def mounts_below(directory: str) -> list[str]:
    """The mount points at and below ``directory``, in the order of mounting (proc(5), mountinfo)."""
    return [point for point, _ in _mount_points() if _is_within(point, directory)]


def _mount_points() -> list[tuple[str, bool]]:
    """Mount points in the order of mounting, each with whether it is a slave of another mount."""
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            fields = line.split(b" ")
            # After the sixth there are any number of optional fields, and a hyphen.
            is_slave = any(field.startswith(b"master:") for field in fields[6 : fields.index(b"-")])
            found.append((os.fsdecode(_unescaped(fields[4])), is_slave))
    return found


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def _unescaped(text: bytes) -> bytes:
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(code, character)
    return text


def _propagate(target: str, flags: int) -> None:
    _call(f"share the mounts below {target}", "mount", b"none", os.fsencode(target), None, flags, None)


def _system_call(what: str, number: int, *arguments: int | bytes) -> int:
    """One that the C library has no function for; a descriptor, or 0."""
    return _call(what, "syscall", number, *arguments)


def _call(what: str, function: str, *arguments: int | bytes | None) -> int:
    try:
        return c_function(function)(*arguments)
    except OSError as error:
        raise HostError.of(f"cannot {what}", error) from error


def remove_mounts(directory: str) -> None:
    """Unmount everything at and below ``directory``.

    :raise HostError: a mount remains.
    """
    directory = os.path.realpath(directory)
    while found := mounts_below(directory):
        # In reverse order: later mounts can cover earlier ones.
        detach(found[-1])
