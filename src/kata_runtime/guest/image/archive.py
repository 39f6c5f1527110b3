"""The kernel's initramfs format, "newc" cpio (Documentation/driver-api/early-userspace/buffer-format.rst).

All files belong to root, all times are zero and the paths are sorted, so the same files give the same bytes.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4
_CONSOLE_DEVICE = (5, 1)


class Node(NamedTuple):
    """One file system object; ``data`` is the content of a file or the target of a symbolic link."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def regular_file(data: bytes, permissions: int = 0o644) -> Node:
    """Return a regular file."""
    return Node(stat.S_IFREG | permissions, data)


def symbolic_link(target: str) -> Node:
    """Return a symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target.encode())


def directory(permissions: int = 0o755) -> Node:
    """Return a directory."""
    return Node(stat.S_IFDIR | permissions)


def console_device() -> Node:
    """Return /dev/console, which the kernel opens for init before anything is mounted."""
    return Node(stat.S_IFCHR | 0o600, device=_CONSOLE_DEVICE)


def write_archive(stream: BinaryIO, nodes: Mapping[str, Node]) -> None:
    """Write ``nodes`` (path without a leading slash -> node) and the directories that contain them."""
    complete = {parent: directory() for path in nodes for parent in _parents(path)}
    complete.update(nodes)
    for number, path in enumerate(sorted(complete), start=1):
        stream.writelines(_record(number, path, complete[path]))
    stream.writelines(_record(0, _TRAILER, Node(0)))


def _parents(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _record(number: int, path: str, node: Node) -> list[bytes]:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    size = len(node.data)
    fields = (number, node.mode, 0, 0, links, 0, size, 0, 0, *node.device, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return [header, name, _padding(len(header) + len(name)), node.data, _padding(size)]


def _padding(length: int) -> bytes:
    return b"\0" * (-length % _ALIGNMENT)
