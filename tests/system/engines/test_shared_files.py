"""What the guest has mounted of the host's file systems while containers come and go."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Sandbox
from tests.system.engines.conftest import NOTHING, Bundle, Host, record_of

from kata_runtime.guest.channel import AgentChannel
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Runtime

_END_SECONDS = 20.0
_STOPPED_SECONDS = 5.0
_SHARED = "/run/kata-runtime/shared/"


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A virtiofsd, and its child that serves, which do not answer meanwhile."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    both = [pid, *map(int, children)]
    for one in both:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in both:
            os.kill(one, signal.SIGCONT)


def _mounted(sandbox: Sandbox) -> list[str]:
    """What the guest has mounted below its shared directory, outside of containers."""
    paths = SandboxPaths(str(sandbox.directory))
    channel = AgentChannel(paths.control, paths.exec_socket(RUNTIME_EXEC_PORT))
    try:
        lines = channel.run(["cat", "/proc/mounts"]).stdout.decode().splitlines()
    finally:
        channel.close()
    points = [line.split()[1] for line in lines]
    return [point.removeprefix(_SHARED) for point in points if point.startswith(_SHARED)]


@contextmanager
def _running(runtime: Runtime, bundle: Bundle, name: str) -> Iterator[None]:
    """A container in the background that has printed that it is ready, and keeps reading."""
    argv = runtime.argv("run", "--detach", "--bundle", str(bundle.directory), name)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield


def _killed(runtime: Runtime, name: str) -> int:
    """Kill a container; a descriptor that is readable when its shim has ended."""
    shim = os.pidfd_open(json.loads(runtime.cli("state", name).stdout)["pid"])
    assert runtime.cli("kill", name, "KILL").stderr == ""
    return shim


def _ended(shims: list[int], seconds: float) -> list[int]:
    """Those that end within ``seconds``."""
    deadline = time.monotonic() + seconds
    ended: list[int] = []
    while len(ended) < len(shims) and time.monotonic() < deadline:
        waiting = [shim for shim in shims if shim not in ended]
        ended += select.select(waiting, [], [], deadline - time.monotonic())[0]
    return sorted(ended)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own within a directory."""
    made = tmp_path / "volume/inner"
    made.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "kata-test", str(made)], check=True)
    try:
        yield made
    finally:
        subprocess.run(["umount", str(made)], check=True)


def test_containers_that_end_while_files_are_being_closed(
    bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str], inner: Path
) -> None:
    """Each ends, at the latest when virtiofsd has closed its files; the guest's kernel is well, and keeps no mount."""
    owner, member = names = unique("owner"), unique("member")
    volume = {"destination": "/tmp", "type": "bind", "source": str(inner.parent), "options": ["rbind"]}
    # Directories: a process that ends waits until what it has written to files is flushed, but for no release.
    script = "exec 5</bin 6</tmp 7</tmp/inner; echo ready; read line"
    bundle.write("/bin/sh", "-c", script, mounts=[*bundle.mounts(), volume])
    sandbox = Sandbox(engine_runtime, owner)
    held = [f"{name}/{path}" for name in names for path in ("mount1", "mount1/inner", "rootfs")]
    with ExitStack() as stack:
        stack.callback(lambda: [engine_runtime.cli("delete", "--force", name) for name in reversed(names)])
        stack.enter_context(_running(engine_runtime, bundle, owner))
        bundle.namespace("network", f"/proc/{json.loads(engine_runtime.cli('state', owner).stdout)['pid']}/ns/net")
        stack.enter_context(_running(engine_runtime, bundle, member))
        with _stopped(record_of(engine_runtime.root, owner)["virtiofsd"]):
            shims = [_killed(engine_runtime, name) for name in names]
            for shim in shims:
                stack.callback(os.close, shim)
            # Some kernels (Debian 12's 6.1.0-50) end them at once, others (-56) when virtiofsd has closed the files.
            _ended(shims, _STOPPED_SECONDS)
        assert _ended(shims, _END_SECONDS) == sorted(shims)
        assert "BUG" not in (sandbox.directory / "console.log").read_text()
        assert sorted(_mounted(sandbox)) == sorted(held)
        assert engine_runtime.cli("delete", member).stderr == ""
        assert sorted(_mounted(sandbox)) == sorted(held[:3])
    assert Host(engine_runtime.root).left() == NOTHING
