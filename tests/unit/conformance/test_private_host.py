"""The place where a suite runs ends with the command, however that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import TYPE_CHECKING

import pytest
from conformance.private_host import BUILD

from kata_runtime.sandbox.cgroup import remove

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 30.0
# The command with a suite of one test, which leaves a daemon, a mount and a cgroup behind.
_COMMAND = """
import sys
sys.path[:0] = ["src", "."]
from conformance import conformance
from conformance.private_host import private_host

def run(wanted, left_out, runtime):
    with private_host(sys.argv[1]) as host:
        environment = {"READY": sys.argv[3]}
        host.run(["sh", "-euc", sys.argv[2]], seconds=1000, directory=host.directory, environment=environment)
        yield

conformance.SUITES = {"only": conformance.Suite(run, list, "")}
sys.exit(conformance.main(["--suite", "only", "--tests", "any"]))
"""
_TEST = """
mkdir "$TMPDIR/mounted"
mount -t tmpfs "$NAME" "$TMPDIR/mounted"
group=$(awk '$3 ~ /^cgroup2?$/ { print $2; exit }' /proc/mounts)
mkdir "$group/made"
setsid sh -c 'sleep 1000; : "$1"' sh "$NAME" &
echo $! >"$group/made/cgroup.procs"
echo ready >"$READY"
wait
"""


def _traces(name: str) -> dict[str, list[str]]:
    """What there is of a run on this host."""
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                commands.append((entry / "cmdline").read_bytes().decode(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return {
        "processes": [command for command in commands if name in command],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line],
        "cgroups": [parent for parent, _, _ in os.walk("/sys/fs/cgroup") if name in parent],
        "directories": [path.name for path in BUILD.iterdir() if name in path.name],
    }


@contextmanager
def _in_a_test(name: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in the middle of its test."""
    fifo = directory / "ready"
    os.mkfifo(fifo)
    ready = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    argv = [sys.executable, "-c", _COMMAND, name, _TEST.replace("$NAME", name), str(fifo)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert select([ready], [], [], _SECONDS)[0]
        yield process
    finally:
        process.kill()
        process.communicate()
        os.close(ready)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left(ending: signal.Signals, tmp_path: Path) -> None:
    """Ended by a signal in the middle of a test, make conformance leaves no process, mount, cgroup or directory."""
    name = f"ended-{os.getpid()}-{ending.name}"
    with _in_a_test(name, tmp_path) as process:
        there = _traces(name)
        assert {kind: bool(found) for kind, found in there.items()} == {
            "processes": True, "mounts": False, "cgroups": True, "directories": True,
        }  # fmt: skip
        process.send_signal(ending)
        output, errors = process.communicate(timeout=_SECONDS)
    assert (process.returncode, output, errors) == (128 + ending, "", "")
    assert _traces(name) == {"processes": [], "mounts": [], "cgroups": [], "directories": []}


def test_killed(tmp_path: Path) -> None:
    """When the command is killed, all processes of the test end with it."""
    name = f"killed-{os.getpid()}"
    with _in_a_test(name, tmp_path) as process:
        cgroups = _traces(name)["cgroups"]
        pids = {int(pid) for group in cgroups for pid in (Path(group) / "cgroup.procs").read_text().split()}
        descriptors = [os.pidfd_open(pid) for pid in pids - {process.pid}]
        process.kill()
        ended = [fd for fd in descriptors if select([fd], [], [], _SECONDS)[0]]
    assert (len(pids) > 2, ended) == (True, descriptors)
    for fd in descriptors:
        os.close(fd)
    remove(list(reversed(cgroups)))
    for path in BUILD.glob(f"{name}-*"):
        shutil.rmtree(path)
