"""containerd, through ctr, with containers in VMs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.engines.conftest import NOTHING, SECONDS, Host
from tests.system.engines.containerd import Containerd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Runtime

_WORK = "trap 'echo ended; exit 5' TERM; echo started; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def containerd(engine_namespace: Namespace, engine_runtime: Runtime) -> Iterator[Containerd]:
    """A containerd that serves."""
    directory = Path(tempfile.mkdtemp(prefix="kata-containerd-"))
    made = Containerd(directory, engine_namespace, engine_runtime)
    try:
        yield made
        assert made.run("container", "list", "--quiet") == ""
    finally:
        made.close()
        # containerd gives the runtime a root of its own for each of its namespaces.
        (engine_runtime.root / "default").rmdir()
        shutil.rmtree(directory)


def _status(containerd: Containerd, name: str) -> str:
    rows = [line.split() for line in containerd.run("task", "list").splitlines()]
    return next(row[2] for row in rows if row[0] == name)


def test_run(containerd: Containerd, rootfs: Path, engine_runtime: Runtime) -> None:
    """A container in the foreground passes its output and status on, and leaves nothing."""
    done = containerd.attempt("run", "--rm", *containerd.options(rootfs), "once", "/bin/sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert Host(engine_runtime.root / "default").left() == NOTHING


def test_life_of_a_task(containerd: Containerd, rootfs: Path, engine_runtime: Runtime) -> None:
    """Exec, processes, metrics, pause, resume, signals and status of a task; then nothing is left."""
    words = ["run", "--rm", *containerd.options(rootfs), "task", "/bin/sh", "-c", _WORK]
    with containerd.removed("task"), containerd.started(*words) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        done = containerd.attempt("task", "exec", "--exec-id", "one", "task", "/bin/sh", "-c", "id -u; exit 4")
        assert (done.returncode, done.stdout) == (4, "0\n")
        assert len(containerd.run("task", "ps", "task").splitlines()) == 2
        assert "memory.usage_in_bytes" in containerd.run("task", "metrics", "task")
        containerd.run("task", "pause", "task")
        assert _status(containerd, "task") == "PAUSED"
        containerd.run("task", "resume", "task")
        assert _status(containerd, "task") == "RUNNING"
        containerd.run("task", "kill", "--signal", "TERM", "task")
        assert (running.stdout.read(), running.wait(SECONDS)) == ("ended\n", 5)
    assert Host(engine_runtime.root / "default").left() == NOTHING


def test_program_that_is_missing(containerd: Containerd, rootfs: Path, engine_runtime: Runtime) -> None:
    """containerd shows its user the guest's own words of why a container cannot start."""
    with containerd.removed("missing"):
        done = containerd.attempt("run", *containerd.options(rootfs), "missing", "/bin/nosuch")
    assert (done.returncode, done.stderr.partition("OCI runtime create failed: ")[2]) == (
        1, "executable file `/bin/nosuch` not found in $PATH: No such file or directory: unknown\n",
    )  # fmt: skip
    assert Host(engine_runtime.root / "default").left() == NOTHING
