"""macvtap interfaces, opened for QEMU (drivers/net/macvtap.c, drivers/net/tap.c of the kernel)."""

from __future__ import annotations

import errno
import os
import stat

from kata_runtime.c_library import c_function
from kata_runtime.errors import ConflictError, HostError

# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000

_WHERE = "/sys"


def open_macvtap(name: str) -> int:
    """The descriptor of macvtap ``name`` in the network namespace of the calling thread, which must end afterwards.

    The device number is found only in the sysfs of its network namespace, and /dev has device nodes of at most one
    namespace. The thread therefore gets a mount namespace of its own, with that sysfs and a temporary device node.
    Each frame begins with a struct virtio_net_hdr, as tap_open() has it.

    :raise ConflictError: another process holds it. :raise HostError: the kernel refused.
    """
    try:
        c_function("unshare")(_CLONE_NEWNS)
        mount = c_function("mount")
        mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
        mount(b"sysfs", _WHERE.encode(), b"sysfs", 0, None)
        directory = f"{_WHERE}/class/net/{name}"
        tap = next(entry for entry in os.listdir(directory) if entry.startswith("tap"))
        with open(f"{directory}/{tap}/dev", encoding="ascii") as file:
            major, _, minor = file.read().strip().partition(":")
        mount(b"tmpfs", _WHERE.encode(), b"tmpfs", 0, None)
        os.mknod(f"{_WHERE}/tap", stat.S_IFCHR | 0o600, os.makedev(int(major), int(minor)))
        return os.open(f"{_WHERE}/tap", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except StopIteration as error:
        raise HostError(f"the macvtap {name!a} has no device") from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ConflictError(f"the macvtap {name!a} is held by another process") from error
        raise HostError.of(f"cannot open the macvtap {name!a}", error) from error
