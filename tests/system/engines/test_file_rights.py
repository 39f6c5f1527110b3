"""Who may make files in volumes: the guest's kernel decides, by all groups and capabilities of a process."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from tests.system.engines.conftest import quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Runtime
    from tests.system.engines.conftest import Bundle

_FIRST = 100_000  # the host's number of the container's user and group 0
_MAPPING = [{"containerID": 0, "hostID": _FIRST, "size": 65536}]
_MAKE = "touch file; mkdir directory; ln -s file link; ln file hard; mknod -m 2755 pipe p"


def _volume(directory: Path, user: int, group: int, mode: int) -> dict[str, object]:
    directory.mkdir()
    os.chown(directory, _FIRST + user, _FIRST + group)
    directory.chmod(mode)
    return {"destination": f"/{directory.name}", "type": "bind", "source": str(directory), "options": ["bind"]}


def _made(directory: Path) -> dict[str, tuple[int, int, str]]:
    """User, group and mode of each file, with the container's numbers."""
    found = {}
    for path in directory.iterdir():
        status = path.lstat()
        found[path.name] = (status.st_uid - _FIRST, status.st_gid - _FIRST, stat.filemode(status.st_mode))
    return found


def test_making_files(bundle: Bundle, engine_runtime: Runtime, tmp_path: Path, unique: Callable[[str], str]) -> None:
    """A process makes files by right of its second group, as root of a user namespace, and else not at all."""
    name, cli = unique("r"), engine_runtime.cli
    volumes = [
        _volume(tmp_path / "run", 0, 2000, 0o2775),
        _volume(tmp_path / "www", 0, 0, 0o555),
        _volume(tmp_path / "tmp", 0, 3000, 0o2777),
    ]
    mounts = [mount for mount in bundle.mounts() if mount["destination"] != "/run"]
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user", "network")]
    bundle.write("/bin/sleep", "1000", mounts=[*mounts, *volumes])
    bundle.change("linux", namespaces=namespaces, uidMappings=_MAPPING, gidMappings=_MAPPING)

    def command(script: str, *options: str) -> tuple[int, str]:
        done = cli("exec", *options, name, "sh", "-c", script)
        return done.returncode, done.stderr

    try:
        assert quiet(engine_runtime.argv("run", "--detach", "--bundle", str(bundle.directory), name)) == (0, "")
        member = ("--user", "1000:1000", "--additional-gids", "2000")
        assert command(f"cd /run; {_MAKE}", *member) == (0, "")
        assert command("mkdir /www/directory", "--cap", "CAP_DAC_OVERRIDE") == (0, "")
        assert command("mknod -m 2755 /tmp/pipe p", *member) == (0, "")
        refused = "touch: /run/other: Permission denied\ntouch: /www/other: Permission denied\n"
        assert command("touch /run/other /www/other", "--user", "1000:1000") == (1, refused)
    finally:
        deleted = cli("delete", "--force", name)
    assert (deleted.returncode, deleted.stderr) == (0, "")
    assert _made(tmp_path / "run") == {
        "file": (1000, 2000, "-rw-r--r--"),
        "hard": (1000, 2000, "-rw-r--r--"),
        "directory": (1000, 2000, "drwxr-sr-x"),
        "link": (1000, 2000, "lrwxrwxrwx"),
        "pipe": (1000, 2000, "prwxr-sr-x"),
    }
    assert _made(tmp_path / "www") == {"directory": (0, 0, "drwxr-xr-x")}
    # Who is not of the group that a file gets from its directory cannot make one that gives that group's rights.
    assert _made(tmp_path / "tmp") == {"pipe": (1000, 3000, "prwxr-xr-x")}
