"""The part of libmount's Python binding that crun's tests use; Debian 12 has no package of it.

See proc_pid_mountinfo(5) for the fields.
"""

from __future__ import annotations

from pathlib import Path


class FileSystem:
    """A mounted file system: the options of the mount, and those of what is mounted."""

    def __init__(self, fields: list[str]) -> None:
        self.target = fields[4]
        self.vfs_options = fields[5]
        self.fs_options = fields[fields.index("-") + 3]


class Table:
    """A table of mounts in a file."""

    def __init__(self, path: str) -> None:
        self._mounts = [FileSystem(line.split(" ")) for line in Path(path).read_text().splitlines() if line]

    def find_target(self, target: str) -> FileSystem:
        """The mount at ``target``, the last one if there are several."""
        return [mount for mount in self._mounts if mount.target == target][-1]
