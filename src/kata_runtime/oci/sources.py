"""Inspects the source of a bind mount."""

from __future__ import annotations

import os
import stat

from kata_runtime.errors import HostError
from kata_runtime.oci.guest_config import Source

_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def inspect_source(path: str) -> Source:
    """The kind of a path of this host. :raise HostError: it does not exist."""
    try:
        found = os.stat(path)
        system = os.statvfs(path)
    except OSError as error:
        raise HostError.of(f"cannot mount {path}", error) from error
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
    return Source(kind, found.st_dev, found.st_ino, system.f_blocks * system.f_frsize)
