"""Podman with containers in VMs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.system.engines.conftest import NOTHING, Host, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.engines.conftest import Podman

_WORK = "trap 'echo ended; exit 5' TERM; echo started; while :; do sleep 0.1; done"
# What an end of VM, virtiofsd or shim may take until the engine knows.
_TOLD_SECONDS = 5.0


@pytest.fixture(scope="module")
def worker(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container with a volume, limits and names of its own, that the tests of this module share."""
    volume = tmp_path_factory.mktemp("volume")
    (volume / "given").write_text("from the host")
    options = ["--network", "none", "--hostname", "box", "--env", "A=b", "--shm-size", "16m", "--memory", "64m"]
    options += ["--pids-limit", "50", "--sysctl", "net.ipv4.ip_forward=1", "--volume", f"{volume}:/volume"]
    options += ["--volume", f"{volume}/given:/given:ro", "--volume", f"{volume}:/over:O", "--tmpfs", "/scratch"]
    with podman.removed("worker"):
        podman.run("run", "--detach", "--name", "worker", *options, "localhost/tiny", "sh", "-c", _WORK)
        assert podman.line_of("worker") == "started\n"
        yield "worker"
        assert (volume / "made").read_text() == "from the guest"


def test_what_a_container_sees(podman: Podman, worker: str) -> None:
    """Image, volumes, host name, environment, shared memory, limits and sysctls are as asked for, in a VM."""
    script = """
        cat /given; echo; printf 'from the guest' > /volume/made; echo x > /given; hostname; echo "$A"
        df /dev/shm | tail -n 1 | { read _ size _; echo $size; }
        cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /proc/sys/net/ipv4/ip_forward
        echo changed > /over/given; cat /over/given
    """
    done = podman.attempt("exec", worker, "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"from the host\nbox\nb\n16384\n{64 << 20}\n50\n1\nchanged\n",
        "sh: can't create /given: Read-only file system\n",
    )
    assert podman.run("exec", worker, "cat", "/proc/sys/kernel/osrelease").strip() != os.uname().release


def test_exec(podman: Podman, worker: str) -> None:
    """Streams, exit statuses, user, directory and environment of commands; a missing program is 127."""
    data = b"".join(b"%d\n" % number for number in range(50_000))
    assert podman.run("exec", "--interactive", worker, "cat", stdin=data).encode() == data
    done = podman.attempt("exec", worker, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    options = ["--user", "1000:1001", "--workdir", "/tmp", "--env", "C=d"]
    assert podman.run("exec", *options, worker, "sh", "-c", "id -u; id -g; pwd; echo $C") == "1000\n1001\n/tmp\nd\n"
    missing = podman.attempt("exec", worker, "nosuch")
    assert (missing.returncode, missing.stderr) == (
        127,
        (
            "Error: kata: executable file `nosuch` not found in $PATH: No such file or directory: "
            "OCI runtime attempted to invoke a command that was not found\n"
        ),
    )


def test_copies(podman: Podman, worker: str, tmp_path: Path) -> None:
    """podman cp reads and writes the container's files, not the host's; to a tmpfs of the guest's it is refused."""
    (tmp_path / "sent").write_text("copied")
    name = f"/copied-{os.getpid()}"
    podman.run("cp", f"{tmp_path}/sent", f"{worker}:{name}")
    assert podman.run("exec", worker, "cat", name, "/volume/given") == "copiedfrom the host"
    podman.run("cp", f"{worker}:/volume/given", f"{tmp_path}/got")
    refused = podman.attempt("cp", f"{tmp_path}/sent", f"{worker}:/scratch/sent")
    assert (refused.returncode, "read-only file system" in refused.stderr) == (125, True), refused.stderr
    assert ((tmp_path / "got").read_text(), os.path.exists(name)) == ("from the host", False)


def test_terminal(podman: Podman, worker: str) -> None:
    """A terminal in the guest has the size of the one outside, and what is typed there goes in."""
    asked = podman.argv("exec", "--interactive", "--tty", worker, "sh", "-c", "stty size; read line; echo got $line")
    script = ["script", "--quiet", "--return", "--log-out", "/dev/null", "--command"]
    shell = f"stty rows 33 cols 77; exec {' '.join(repr(word) for word in asked)}"
    done = subprocess.run([*script, shell], input=b"typed\n", capture_output=True, check=False, timeout=60)
    lines = done.stdout.decode().split("\r\n")
    assert (done.returncode, "33 77" in lines, "got typed" in lines) == (0, True, True), lines


def test_pause_stats_and_update(podman: Podman, worker: str) -> None:
    """A paused container says so and goes on; what its VM uses is counted; a limit can change while it runs."""
    podman.run("pause", worker)
    assert podman.run("inspect", "--format", "{{.State.Status}}", worker) == "paused\n"
    podman.run("unpause", worker)
    assert podman.run("inspect", "--format", "{{.State.Status}}", worker) == "running\n"
    (stats,) = json.loads(podman.run("stats", "--no-stream", "--format", "json", worker))
    # More than the container's limit: it is the VM that is counted.
    assert float(stats["mem_usage"].partition("MB")[0]) > 64
    podman.attempt("update", "--memory", "80m", worker)
    assert podman.run("exec", worker, "cat", "/sys/fs/cgroup/memory.max") == f"{80 << 20}\n"


def test_processes(podman: Podman, worker: str) -> None:
    """podman top with options of ps, and the runtime's ps, show processes of the guest; podman top alone shows none."""
    assert podman.run("top", worker).split()[-1] == "COMMAND"  # none of the host's
    shown = podman.run("top", worker, "-o", "pid,args").splitlines()
    assert (shown[0].split(), shown[1].split()[:3]) == (["PID", "COMMAND"], ["1", "sh", "-c"])
    rows = podman.runtime.cli("ps", podman.id_of(worker)).stdout.splitlines()
    assert [row.split(None, 3)[1] for row in rows[1:]] == ["root"] * len(rows[1:])
    assert rows[1].split(None, 3)[3].startswith("sh -c trap")


def test_stop_and_start_again(podman: Podman, worker: str) -> None:
    """A container that is stopped ends by its own handler, with its status, leaves nothing, and can be restarted."""
    podman.run("stop", "--time", "20", worker)
    assert podman.run("inspect", "--format", "{{.State.ExitCode}}", worker) == "5\n"
    assert podman.run("logs", worker) == "started\nended\n"
    assert Host(podman.runtime.root).left() == NOTHING
    podman.run("start", worker)
    assert podman.run("exec", worker, "echo", "again") == "again\n"


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("pid", "kata-runtime: the container ended because QEMU of its VM did\n"),
        ("virtiofsd", "kata-runtime: the container ended because virtiofsd of its VM did\n"),
    ],
)
def test_end_of_what_it_stands_on(podman: Podman, worker: str, victim: str, reason: str) -> None:
    """When QEMU or virtiofsd is killed, the engine has status 137 and the reason at once, and nothing is left."""
    podman.run("start", worker)
    os.kill(record_of(podman.runtime.root, podman.id_of(worker))[victim], signal.SIGKILL)
    begun = time.monotonic()
    assert podman.run("wait", worker) == "137\n"
    assert time.monotonic() - begun < _TOLD_SECONDS
    assert podman.attempt("logs", worker).stderr.endswith(reason)
    assert Host(podman.runtime.root).left() == NOTHING


def test_killed_shim(podman: Podman, worker: str) -> None:
    """When a container's shim is killed, the container is, too."""
    podman.run("start", worker)
    os.kill(int(podman.run("inspect", "--format", "{{.State.Pid}}", worker)), signal.SIGKILL)
    assert podman.run("wait", worker) == "137\n"
    assert Host(podman.runtime.root).left() == NOTHING


def test_refused_by_name(podman: Podman, tmp_path: Path) -> None:
    """What a VM cannot do is refused before anything is made, in a line that says why."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for option, value, reason in (
        ("--network", "host", "config.json: the host's network cannot be shared with a VM"),
        ("--volume", f"{tmp_path}/socket:/x", f"the mount of {tmp_path}/socket at /x is not possible: it is a socket"),
        ("--device", "/dev/kmsg", "/dev/kmsg is a device of the host, which a VM does not have"),
    ):
        # Without a network of Podman's, whose addresses CNI would note outside of Podman's directories.
        alone = [] if option == "--network" else ["--network", "none"]
        done = podman.attempt("run", "--rm", *alone, option, value, "localhost/tiny", "true")
        assert (done.returncode, reason in done.stderr) == (126, True), done.stderr
    assert Host(podman.runtime.root).left() == NOTHING
