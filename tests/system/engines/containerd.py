"""containerd with everything of its own in one directory."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.engines.conftest import SECONDS, wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.conftest import Completed, Namespace, Runtime

# What docs/engines.md tells users to write, and where the plug-ins of networks are.
_INTERFACE = """
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/networks"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "kata"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata.options]
      BinaryName = "{program}"
      Root = "{root}"
"""


class Containerd:
    """A containerd that serves until it is closed, with the Container Runtime Interface or without."""

    def __init__(self, directory: Path, namespace: Namespace, runtime: Runtime, *, interface: bool = False) -> None:
        self.directory = directory
        self.socket = directory / "socket"
        self._program = wrapper(directory, runtime)
        self._root = runtime.root
        plugins = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'
        if interface:
            plugins = _INTERFACE.format(directory=directory, program=self._program, root=runtime.root)
        (directory / "config.toml").write_text(
            f"""
version = 2
root = "{directory}/root"
state = "{directory}/state"
{plugins}
[grpc]
  address = "{self.socket}"
"""
        )
        argv = [*namespace.prefix, "containerd", "--config", str(directory / "config.toml")]
        self._running = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        assert self._running.stderr is not None
        # It serves when it says so.
        while "containerd successfully booted" not in (line := self._running.stderr.readline()):
            assert line, "containerd ended"
        # It writes on, and must not wait for a reader.
        self._reader = threading.Thread(target=self._running.stderr.read)
        self._reader.start()

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command of ctr that runs during the block."""
        running = subprocess.Popen(
            self._argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield running
        finally:
            running.kill()
            running.communicate()

    def _argv(self, *words: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), *words]

    def attempt(self, *words: str) -> Completed:
        """Run one command of ctr."""
        return subprocess.run(
            self._argv(*words), capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """What a command prints that must succeed."""
        done = self.attempt(*words)
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stdout, done.stderr)
        return done.stdout

    def options(self, rootfs: Path) -> list[str]:
        """What makes ``ctr run`` use this runtime and a directory as root file system."""
        return ["--runc-binary", str(self._program), "--runc-root", str(self._root), "--rootfs", str(rootfs)]

    @contextmanager
    def removed(self, name: str) -> Iterator[None]:
        """Remove a container, however the block ends."""
        try:
            yield
        finally:
            self.attempt("task", "delete", "--force", name)
            self.attempt("container", "delete", name)

    def close(self) -> None:
        """End it."""
        self._running.send_signal(signal.SIGTERM)
        self._running.wait(30)
        self._reader.join()
        assert self._running.stderr is not None
        self._running.stderr.close()
