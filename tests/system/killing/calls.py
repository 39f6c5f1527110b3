"""The system calls that change something outside the process: a file, another process, a connection, a lock.

Numbers are x86-64's (arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_STDERR = 2
_MAKING = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR

# What is written to people does not count.
_WRITES = {1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2"}
_SENDS = {40: "sendfile", 44: "sendto", 46: "sendmsg", 307: "sendmmsg", 275: "splice", 326: "copy_file_range"}
_FILES = {
    76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink",
    88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 94: "lchown", 133: "mknod", 258: "mkdirat",
    259: "mknodat", 260: "fchownat", 263: "unlinkat", 264: "renameat", 265: "linkat", 266: "symlinkat",
    268: "fchmodat", 285: "fallocate", 316: "renameat2",
}  # fmt: skip
_DISK = {74: "fsync", 75: "fdatasync", 162: "sync", 277: "sync_file_range", 306: "syncfs"}
_SOCKETS = {42: "connect", 48: "shutdown", 49: "bind", 50: "listen", 54: "setsockopt"}
_PROCESSES = {
    56: "clone", 57: "fork", 58: "vfork", 59: "execve", 61: "wait4", 62: "kill", 200: "tkill", 234: "tgkill",
    247: "waitid", 272: "unshare", 308: "setns", 322: "execveat", 424: "pidfd_send_signal", 435: "clone3",
}  # fmt: skip
_MOUNTS = {155: "pivot_root", 165: "mount", 166: "umount2", 428: "open_tree", 429: "move_mount", 442: "mount_setattr"}
_ALWAYS = {**_SENDS, **_FILES, **_DISK, **_SOCKETS, **_PROCESSES, **_MOUNTS, 73: "flock"}
_OPEN, _OPENAT, _OPENAT2, _IOCTL, _FCNTL = 2, 257, 437, 16, 72
# TUNSETIFF and its kin (linux/if_tun.h: type T), interfaces (linux/sockios.h), vhost (linux/vhost.h).
_IOCTL_TYPES = {0x89: "ioctl(SIOC)", 0xAF: "ioctl(VHOST)"}
_TUN_NUMBERS = range(200, 230)
_LOCKS = {6, 7, 37, 38}  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW


def name_of(number: int, arguments: Sequence[int]) -> str | None:
    """What a call is named when it changes something; None when it does not."""
    if number in _WRITES:
        return None if arguments[0] == _STDERR else _WRITES[number]
    if number in (_OPEN, _OPENAT):
        return "open" if arguments[2 if number == _OPENAT else 1] & _MAKING else None
    if number == _OPENAT2:
        return "openat2"
    if number == _IOCTL:
        kind = arguments[1] >> 8 & 0xFF
        if kind == ord("T"):
            return "ioctl(TUN)" if arguments[1] & 0xFF in _TUN_NUMBERS else None
        return _IOCTL_TYPES.get(kind)
    if number == _FCNTL:
        return "fcntl(lock)" if arguments[1] in _LOCKS else None
    return _ALWAYS.get(number)
