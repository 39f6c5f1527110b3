"""Docker with containers in VMs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Runtime
from tests.system.engines.conftest import NOTHING, SECONDS, Host, wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Completed, Namespace

_SERVE = """
echo page > /www/index.html
trap 'echo ended; exit 5' TERM
httpd -p 80 -h /www
echo serving
while :; do sleep 0.1; done
"""


class Docker:
    """dockerd and a containerd with everything of their own in one directory."""

    def __init__(self, directory: Path, namespace: Namespace, config: Path) -> None:
        self.directory = directory
        self.namespace = namespace
        # Where dockerd lets its runtimes keep their state.
        self.runtime = Runtime(directory / "exec/runtime-runc/moby", config)
        program = wrapper(directory, self.runtime)
        (directory / "containerd.toml").write_text(
            f"""
version = 2
root = "{directory}/containerd/root"
state = "{directory}/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{directory}/containerd.socket"
"""
        )
        self._daemons: list[tuple[subprocess.Popen[str], threading.Thread]] = []
        self._begin("containerd successfully booted", "containerd", "--config", f"{directory}/containerd.toml")
        self._begin(
            "API listen on", "dockerd", "--containerd", f"{directory}/containerd.socket",
            "--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid",
            "--host", f"unix://{directory}/socket", "--add-runtime", f"kata={program}", "--default-runtime", "kata",
            "--storage-driver", "vfs", "--ip6tables=false",
        )  # fmt: skip

    def _begin(self, ready: str, *argv: str) -> None:
        daemon = subprocess.Popen([*self.namespace.prefix, *argv], stderr=subprocess.PIPE, text=True)
        assert daemon.stderr is not None
        while ready not in (line := daemon.stderr.readline()):
            assert line, f"{argv[0]} ended"
        # It writes on, and must not wait for a reader.
        reader = threading.Thread(target=daemon.stderr.read)
        reader.start()
        self._daemons.append((daemon, reader))

    def attempt(self, *words: str, stdin: bytes = b"") -> Completed:
        """Run one command."""
        argv = ["docker", "--host", f"unix://{self.directory}/socket", *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=SECONDS, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *words: str, stdin: bytes = b"") -> str:
        """What a command prints that must succeed."""
        done = self.attempt(*words, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> None:
        """End both."""
        for daemon, reader in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
            reader.join()
            assert daemon.stderr is not None
            daemon.stderr.close()


@pytest.fixture(scope="module")
def docker(engine_namespace: Namespace, runtime: Runtime, rootfs: Path) -> Iterator[Docker]:
    """Docker with an image ``tiny`` of the root file system."""
    directory = Path(tempfile.mkdtemp(prefix="kata-docker-"))
    made = Docker(directory, engine_namespace, runtime.config)
    try:
        archive = subprocess.run(
            ["tar", "--create", "--directory", str(rootfs), "."], capture_output=True, check=True
        ).stdout
        made.run("import", "-", "tiny", stdin=archive)
        yield made
        assert made.run("ps", "--all", "--quiet") == ""
    finally:
        made.attempt("rm", "--force", "web")
        made.close()
        engine_namespace.attempt("ip", "link", "delete", "docker0")
        shutil.rmtree(directory)


def test_run(docker: Docker) -> None:
    """A container in the foreground passes input, output and status, and leaves nothing."""
    done = docker.attempt(
        "run", "--rm", "--interactive", "tiny", "sh", "-c", "cat; echo bad >&2; exit 3", stdin=b"in\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", "bad\n")
    assert Host(docker.runtime.root).left() == NOTHING


def _use(docker: Docker, name: str, rootfs: Path) -> None:
    for host in ("127.0.0.1:8082", docker.run("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web").strip()):
        page = docker.namespace.run(f"{rootfs}/bin/busybox", "wget", "-q", "-O", "-", f"http://{host}/")
        assert page.stdout == "page\n"
    done = docker.attempt("exec", "web", "sh", "-c", "echo out; exit 4")
    assert (done.returncode, done.stdout) == (4, "out\n")
    docker.run("pause", "web")
    assert docker.run("inspect", "--format", "{{.State.Status}}", "web") == "paused\n"
    docker.run("unpause", "web")
    assert int(docker.run("stats", "--no-stream", "--format", "{{.PIDs}}", "web")) > 1
    assert docker.run("update", "--memory", "80m", "--memory-swap", "160m", "web") == "web\n"
    assert docker.run("exec", "web", "cat", "/sys/fs/cgroup/memory.max") == f"{80 << 20}\n"
    assert docker.runtime.cli("kata-network", "list-ifaces", name).stdout == "null\n"
    rules = "-A -t 10.9.9.9:80 -s rr"
    assert docker.runtime.cli("kata-ipvs", "ipvsadm", "--parameters", rules, name).returncode == 0


def test_life_of_a_container(docker: Docker, rootfs: Path) -> None:
    """Published port, exec, pause, statistics, update, kata-network, kata-ipvs and stop of a detached container."""
    name = docker.run("run", "--detach", "--name", "web", "--publish", "8082:80", "tiny", "sh", "-c", _SERVE).strip()
    argv = ["docker", "--host", f"unix://{docker.directory}/socket", "logs", "--follow", "web"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as followed:
        assert followed.stdout is not None
        assert followed.stdout.readline() == "serving\n"
        _use(docker, name, rootfs)
        docker.run("stop", "--time", "20", "web")
        assert followed.stdout.read() == "ended\n"
    assert docker.run("inspect", "--format", "{{.State.ExitCode}}", "web") == "5\n"
    docker.run("rm", "web")
    assert Host(docker.runtime.root).left() == NOTHING


def test_program_that_is_missing(docker: Docker) -> None:
    """Docker shows its user the guest's own words of why a container cannot start."""
    done = docker.attempt("run", "--rm", "tiny", "nosuch")
    # 127 or 125: clients of several versions look for several spellings of the reason.
    assert done.returncode > 124
    assert "executable file `nosuch` not found in $PATH: No such file or directory" in done.stderr
    assert Host(docker.runtime.root).left() == NOTHING
