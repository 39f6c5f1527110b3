"""Containers in a sandbox without virtiofs: their root file system is made in the guest, of its busybox."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.crun import Crun, Request, create_request, exec_request
from kata_runtime.sandbox.guest_command import free_port
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.system.conftest import Sandbox

SECONDS = 60.0
_ROOT = "/run/test-root"
_MAKE_ROOT = f"""
set -e
[ -d {_ROOT} ] && exit
mkdir -p {_ROOT}/bin {_ROOT}/proc {_ROOT}/dev {_ROOT}/sys {_ROOT}/tmp
cp /bin/busybox {_ROOT}/bin/
for name in cat head kill md5sum mkdir ps sh sleep stty tail true yes; do ln -s busybox {_ROOT}/bin/$name; done
"""
_DEVICE_MOUNT = ["nosuid", "mode=755", "size=65536k"]
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": _DEVICE_MOUNT},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
]


def process(*argv: str, terminal: bool = False) -> dict[str, object]:
    """An OCI process object."""
    environment = ["PATH=/bin"]
    return {"args": argv, "cwd": "/", "env": environment, "user": {"uid": 0, "gid": 0}, "terminal": terminal}


class Shim:
    """A program that relays a container or a command in one; its standard streams are pipes."""

    def __init__(self, port: str, request: Request) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(SECONDS)
        with theirs:
            program = str(Path(__file__).with_name("shim.py"))
            self.running = subprocess.Popen(
                [sys.executable, "-I", program, port, str(theirs.fileno()), str(request.kind)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._control.sendall(request.payload)

    def answer(self) -> str:
        """What it says of the start."""
        return self._control.recv(65536).decode()

    def notify(self, command: str) -> None:
        """Make it pass on a signal or a size."""
        self._control.sendall(command.encode())

    @property
    def stdin(self) -> IO[bytes]:
        """The container's standard input."""
        assert self.running.stdin is not None
        return self.running.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The container's standard output."""
        assert self.running.stdout is not None
        return self.running.stdout

    def outcome(self, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit status and what is left of both outputs, after its end."""
        stdout, stderr = self.running.communicate(stdin, SECONDS)
        return self.running.returncode, stdout, stderr

    def close(self) -> None:
        """End it, whatever it does."""
        self.running.kill()
        self.running.communicate()
        self._control.close()


class Guest:
    """The containers of a sandbox."""

    def __init__(self, sandbox: Sandbox, channel: AgentChannel, names: Callable[[str], str]) -> None:
        self.crun = Crun(channel)
        self._sandbox = sandbox
        self._channel = channel
        self._names = names
        self.sh(_MAKE_ROOT)

    def sh(self, script: str, stdin: bytes = b"") -> str:
        """Run a script in the guest; what it prints."""
        done = self._channel.run(["sh", "-c", script], stdin, seconds=SECONDS)
        assert (done.exit_status, done.stderr) == (0, b""), script
        return done.stdout.decode()

    @contextmanager
    def shim(self, request: Request) -> Iterator[Shim]:
        """Relay ``request`` on a free port."""
        with free_port(str(self._sandbox.directory), self._sandbox.id) as number:
            made = Shim(SandboxPaths(str(self._sandbox.directory)).exec_socket(number), request)
            try:
                yield made
            finally:
                made.close()

    @contextmanager
    def created(
        self,
        *argv: str,
        terminal: tuple[int, int] | None = None,
        resources: dict[str, object] | None = None,
        namespaces: Sequence[str] = ("pid", "ipc", "uts", "mount", "cgroup"),
        changes: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Iterator[tuple[str, Shim]]:
        """A container that is being created, by its ID, and is deleted at the end; ``changes`` to its configuration."""
        name = self._names("c")
        config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": process(*argv, terminal=terminal is not None),
            "root": {"path": _ROOT},
            "hostname": name,
            "mounts": _MOUNTS,
            "linux": {
                "cgroupsPath": f"/{name}",
                "namespaces": [{"type": kind} for kind in namespaces],
                "resources": resources or {},
            },
        }
        for key, values in (changes or {}).items():
            config[key].update(values)
        bundle = f"/run/test-bundles/{name}"
        self.sh(f"mkdir -p {bundle}; cat > {bundle}/config.json", json.dumps(config).encode())
        with ExitStack() as stack:
            stack.callback(self.sh, f"rm -r {bundle}")
            shim = stack.enter_context(self.shim(create_request(name, bundle, terminal)))
            stack.callback(self.crun.delete, name, force=True)
            yield name, shim

    @contextmanager
    def started(
        self, *argv: str, terminal: tuple[int, int] | None = None, resources: dict[str, object] | None = None
    ) -> Iterator[tuple[str, Shim]]:
        """A container that runs ``argv``."""
        with self.created(*argv, terminal=terminal, resources=resources) as (name, shim):
            assert shim.answer().startswith("started ")
            self.crun.start(name)
            yield name, shim

    @contextmanager
    def executed(
        self, name: str, *argv: str, terminal: tuple[int, int] | None = None, cgroup: str = ""
    ) -> Iterator[Shim]:
        """A command in a running container."""
        with self.shim(exec_request(name, process(*argv), terminal, cgroup)) as shim:
            yield shim


@pytest.fixture
def guest(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Guest]:
    """The containers of the sandbox that tests share; none may be left."""
    channel = AgentChannel(
        SandboxPaths(str(sandbox.directory)).control,
        SandboxPaths(str(sandbox.directory)).exec_socket(RUNTIME_EXEC_PORT),
    )
    try:
        made = Guest(sandbox, channel, unique)
        yield made
        assert made.sh("ls /run/crun /run/kata-agent /run/test-bundles 2>/dev/null || true").split() == [
            "/run/crun:", "/run/kata-agent:", "/run/test-bundles:",
        ]  # fmt: skip
    finally:
        channel.close()
