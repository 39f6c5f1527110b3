"""A file that an engine writes between create and start."""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING

from tests.system.engines.conftest import SECONDS, quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Runtime
    from tests.system.engines.conftest import Bundle


def test_file_written_after_create(
    bundle: Bundle, engine_runtime: Runtime, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """A program reads all of a file to which the engine appended after create, as Podman does to /etc/hosts."""
    name, cli = unique("f"), engine_runtime.cli
    hosts, out = tmp_path / "hosts", tmp_path / "out"
    hosts.write_text("127.0.0.1 localhost\n")
    out.mkdir()
    shared = (("/run/hosts", hosts), ("/tmp", out))
    memory = {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": []}
    volumes = [
        {"destination": target, "type": "bind", "source": str(source), "options": ["bind"]} for target, source in shared
    ]
    bundle.write("/bin/sh", "-c", "cat /run/hosts >/tmp/copy", mounts=[*bundle.mounts(), memory, *volumes])
    try:
        assert quiet(engine_runtime.argv("create", "--bundle", str(bundle.directory), name)) == (0, "")
        process = os.pidfd_open(json.loads(cli("state", name).stdout)["pid"])
        with hosts.open("a") as file:
            file.write("10.88.0.2 container\n")
        started = cli("start", name)
        assert (started.returncode, started.stderr) == (0, "")
        ended = select.select([process], [], [], SECONDS)[0]
        os.close(process)
    finally:
        deleted = cli("delete", "--force", name)
    assert (ended, deleted.returncode, deleted.stderr) == ([process], 0, "")
    assert (out / "copy").read_text() == "127.0.0.1 localhost\n10.88.0.2 container\n"
