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
# First the cgroups, then the namespaces: the root of a cgroup namespace is where its first process is. With version 2
# that root must not have processes if it is to pass controllers on (cgroups(7)): so they go to a group in it.
_MOVE = 'for group in $GROUPS_{}; do echo $$ >"$group/cgroup.procs"; done'
_JOIN = f"""\
{_MOVE.format("OUTER")}
exec unshare --cgroup sh -euc '{_MOVE.format("INNER")}; exec "$@"' sh "$@"
"""
# Killed without a chance to clean up, this command still takes with it what it runs.
_UNSHARE = "setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc".split()
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
# For what leaves tests out on hosts with version 1. No controller is in both versions, so no limits can be tested then.
ONLY_CGROUP_VERSION_2 = "umount --recursive /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup"
_COVERED = ("/dev/shm", "/var/lib/containers", "/var/lib/cni", "/etc/cni/net.d")


class Ran(NamedTuple):
    """What a command printed, and how it ended; ``status`` is None when it took too long and was ended."""

    status: int | None
    output: str
    errors: str


class PrivateHost:
    """A directory for a suite, and a way to run commands in namespaces that end with them."""

    def __init__(self, directory: Path) -> None:
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

    def run(
        self, argv: Sequence[str], *, seconds: float, directory: Path, environment: Mapping[str, str], begin: str = ""
    ) -> Ran:
        """Run a command with namespaces of its own, in which ``begin`` is done first; what it starts ends with it."""
        begin = _BEGIN.format(covered=" ".join(map(shlex.quote, _COVERED)), more=begin)
        with _cgroups(self.directory.name) as groups:
            process = subprocess.Popen(
                ["sh", "-euc", _JOIN, "sh", *_UNSHARE, "sh", "-euc", begin, "sh", *argv],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                cwd=directory, start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.directory), **groups, **environment},
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
    directory.chmod(0o755)  # tests run programs in it as other users
    try:
        yield PrivateHost(directory)
    finally:
        shutil.rmtree(directory)


@contextmanager
def _cgroups(name: str) -> Iterator[dict[str, str]]:
    """Cgroups for one command, as ``_JOIN`` finds them in its environment."""
    outer = [hierarchy / f"kata-conformance-{name}" for hierarchy in _hierarchies()]
    inner = [group / "tests" for group in outer if _is_version_2(group.parent)]
    try:
        for group in (*outer, *inner):
            _make_cgroup(group)
        yield {"GROUPS_OUTER": " ".join(map(str, outer)), "GROUPS_INNER": " ".join(map(str, inner))}
    finally:
        for group in outer:
            remove([parent for parent, _, _ in os.walk(group, topdown=False)])


def has_cgroup_version_1() -> bool:
    """Whether the host has cgroups of version 1, perhaps beside those of version 2."""
    return not all(map(_is_version_2, _hierarchies()))


def _hierarchies() -> list[Path]:
    """Where the host has its cgroups."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(place) for place, kind in mounts if kind in ("cgroup", "cgroup2")]


def _is_version_2(group: Path) -> bool:
    return (group / "cgroup.controllers").exists()


def _make_cgroup(group: Path) -> None:
    group.mkdir()
    # Version 1: no process can join a cpuset that has no processors and no memory yet.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists():
            (group / name).write_text((group.parent / name).read_text())
