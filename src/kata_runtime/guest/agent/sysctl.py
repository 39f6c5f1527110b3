"""Reads and sets sysctls of the guest by their path below /proc/sys."""

from __future__ import annotations

import errno
import os
import re

# The path of a sysctl (proc_sys(5)): components of the characters that the kernel uses, none of them "..".
_NAME = re.compile(rb"(?:[A-Za-z0-9_-][A-Za-z0-9_.:-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.:-]*")
_VALUE_BYTES = 4096


def access_sysctl(name: bytes, value: bytes | None) -> bytes:
    """Set a sysctl, unless ``value`` is None, and read it.

    :raise OSError: EINVAL for a name that no sysctl has; else as the kernel refuses.
    """
    if not _NAME.fullmatch(name):
        raise OSError(errno.EINVAL, "not the name of a sysctl")
    fd = os.open(b"/proc/sys/" + name, (os.O_RDONLY if value is None else os.O_RDWR) | os.O_CLOEXEC)
    try:
        if value is not None:
            os.write(fd, value)
        return os.pread(fd, _VALUE_BYTES, 0)
    finally:
        os.close(fd)
