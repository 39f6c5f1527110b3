"""The namespaces and cgroups that a suite runs in, so that everything it leaves is removed with them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest.image import DEFAULT_DESTINATION, INITRD_NAME, KERNEL_NAME
from kata_runtime.sandbox.cgroup import remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).parents[1]
BUILD = REPOSITORY / "build/conformance"
PROGRAM = REPOSITORY / ".venv/bin/kata-runtime"
# First the cgroups, then the namespaces: the root of a cgroup namespace is where its first process is.
_JOIN = 'for group in $GROUPS_OF_SUITE; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'
# Killed without a chance to clean up, this command still takes with it what it runs.
_UNSHARE = "setpriv --pdeathsig KILL unshare --cgroup --net --mount --pid --fork --kill-child --mount-proc".split()
# The first process of a pid namespace: all others end with it. /run holds network namespaces, locks and sockets;
# /dev/shm holds Podman's locks, all of which it frees when its /run is new.
_BEGIN = """\
mount -t tmpfs -o mode=755 run /run
for directory in {covered}; do mkdir -p "$directory"; mount -t tmpfs covered "$directory"; done
awk '$3 ~ /^cgroup2?$/ {{ print $2, $3, $4 }}' /proc/mounts | while read -r directory kind options; do
    umount "$directory"
    [ "$kind" = cgroup ] || options=
    mount -t "$kind" ${{options:+-o "$options"}} cgroup "$directory"
done
ip link set lo up
{more}
"$@"
"""
_COVERED = ("/dev/shm", "/var/lib/containers", "/var/lib/cni", "/etc/cni/net.d")


class Ran(NamedTuple):
    """What a command printed, and how it ended; ``status`` is None when it took too long and was ended."""

    status: int | None
    output: str
    errors: str


class PrivateHost:
    """A directory for a suite, and a way to run commands in namespaces that end with them."""

    def __init__(self, directory: Path, cgroups: Sequence[Path]) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.root.mkdir()
        self.config = directory / "configuration.toml"
        self.config.write_text(
            "[hypervisor.qemu]\n"
            f'kernel = "{DEFAULT_DESTINATION}/{KERNEL_NAME}"\n'
            f'initrd = "{DEFAULT_DESTINATION}/{INITRD_NAME}"\n'
            "[runtime]\nprivileged_without_host_devices = true\n"
        )
        self._cgroups = cgroups

    def run(
        self, argv: Sequence[str], *, seconds: float, directory: Path, environment: Mapping[str, str], begin: str = ""
    ) -> Ran:
        """Run a command with namespaces of its own, in which ``begin`` is done first; what it starts ends with it."""
        begin = _BEGIN.format(covered=" ".join(map(shlex.quote, _COVERED)), more=begin)
        groups = " ".join(map(str, self._cgroups))
        process = subprocess.Popen(
            ["sh", "-euc", _JOIN, "sh", *_UNSHARE, "sh", "-euc", begin, "sh", *argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            cwd=directory, start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.directory), "GROUPS_OF_SUITE": groups, **environment},
        )  # fmt: skip
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            return Ran(None, output, errors)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Ran(process.returncode, output, errors)


@contextmanager
def private_host(name: str) -> Iterator[PrivateHost]:
    """Namespaces and cgroups for a suite, without leftovers afterwards: no process, mount, directory or cgroup."""
    BUILD.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD))
    cgroups = [hierarchy / f"kata-conformance-{directory.name}" for hierarchy in _hierarchies()]
    try:
        for group in cgroups:
            _make_cgroup(group)
        yield PrivateHost(directory, cgroups)
    finally:
        for group in cgroups:
            remove([parent for parent, _, _ in os.walk(group, topdown=False)])
        shutil.rmtree(directory)


def _hierarchies() -> list[Path]:
    """Where the host has its cgroups."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(place) for place, kind in mounts if kind in ("cgroup", "cgroup2")]


def _make_cgroup(group: Path) -> None:
    group.mkdir()
    # Version 1: no process can join a cpuset that has no processors and no memory yet.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists():
            (group / name).write_text((group.parent / name).read_text())
