"""Containers in VMs: how long the first and the next of a pod take, a command, reading files; and a pod's memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.conftest import fill_rootfs
from tests.system.engines.conftest import Bundle

from bench.boot import memory_of
from bench.harness import ROUNDS, Taken, bench_runtime, in_turns, machine, ratio, run, seconds, table, write
from bench.raw_machine import arguments_of, raw_machine
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.image import packages
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Runtime

    from bench.raw_machine import RawMachine
    from kata_runtime.sandbox.record import Record

_QUICK_ROUNDS = 11
_BIG_MIB = 100
_FILES = 5000
_FILE_BYTES = 2000
_IMAGE_MIB = 192
_SANDBOX, _FIRST = "`run --detach` of a sandbox", "`create` and `start` of a pod's first container"
_NEXT, _EXEC = "`create` and `start` of its next", "`exec` of a program that does nothing"
_VIRTIOFS, _BLOCK = "virtiofs", "ext4 on virtio-blk"
# Nothing of it is in the guest's memory before.
_READ = """
import os, sys, time
root, what = sys.argv[1:]
with open("/proc/sys/vm/drop_caches", "w") as file:
    file.write("3")
start = time.perf_counter()
if what == "big":
    with open(f"{root}/big", "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
else:
    for name in os.listdir(f"{root}/small"):
        with open(f"{root}/small/{name}", "rb", buffering=0) as file:
            file.read()
print(time.perf_counter() - start)
"""
_TEXT = """# Containers in VMs

{machine} `make bench` writes this file.

Commands are timed from outside, with the start of Python, as an engine calls them; they take turns. VMs start from a
template.

{commands}
## Reading files

{big} MiB in one file, and {files} files of {size} bytes, in the guest, with nothing of them in its memory.
The block image is ext4 on virtio-blk of a QEMU that is started by hand with the same arguments; both take turns.

{files_table}
## Memory of a pod

With one container that waits, in MiB. QEMU's is measured as in [boot.md](boot.md); the others' is proportional.

{memory}"""


class _Pods:
    """Pods of one bundle, with a volume."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        self.runtime = runtime
        self._numbers = count()
        (directory / "rootfs").mkdir()
        fill_rootfs(directory / "rootfs")
        self._bundle = Bundle(directory, runtime, directory / "rootfs")
        volume = {"destination": "/tmp", "type": "bind", "source": str(directory / "files"), "options": ["rbind"]}
        self._bundle.write("/bin/sleep", "1000", mounts=[*self._bundle.mounts(), volume])

    def _create(self, name: str) -> None:
        # What it makes keeps its streams: a pipe would not end.
        words = ("create", "--bundle", str(self._bundle.directory), name), ("start", name)
        for argv in words:
            subprocess.run(
                self.runtime.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, check=True,
            )  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[str]:
        """A pod with one container."""
        name = f"pod{next(self._numbers)}"
        self._bundle.namespace("network", "")
        try:
            self._create(name)
            yield name
        finally:
            run(self.runtime.argv("delete", "--force", name))

    def first(self) -> float:
        """Seconds to the first container of a pod."""
        name = f"pod{next(self._numbers)}"
        self._bundle.namespace("network", "")
        try:
            return seconds(lambda: self._create(name))
        finally:
            run(self.runtime.argv("delete", "--force", name))

    def sandbox(self) -> float:
        """Seconds to a sandbox without containers."""
        name = f"sandbox{next(self._numbers)}"
        try:
            return seconds(lambda: run(self.runtime.argv("run", "--detach", name)))
        finally:
            run(self.runtime.argv("delete", "--force", name))

    def another(self, pod: str) -> float:
        """Seconds to one more container in a pod."""
        name = f"member{next(self._numbers)}"
        shim = json.loads(run(self.runtime.argv("state", pod)))["pid"]
        self._bundle.namespace("network", f"/proc/{shim}/ns/net")
        try:
            return seconds(lambda: self._create(name))
        finally:
            run(self.runtime.argv("delete", "--force", name))

    def execute(self, pod: str) -> float:
        """Seconds of a command in a container."""
        return seconds(lambda: run(self.runtime.argv("exec", pod, "true")))


def _make_files(directory: Path) -> None:
    (directory / "small").mkdir(parents=True)
    (directory / "big").write_bytes(os.urandom(_BIG_MIB << 20))
    for number in range(_FILES):
        (directory / f"small/{number}").write_bytes(os.urandom(_FILE_BYTES))


def _read_in_pod(directory: Path, root: str, what: str) -> float:
    paths = SandboxPaths(str(directory))
    channel = AgentChannel(paths.control, paths.exec_socket(RUNTIME_EXEC_PORT))
    try:
        return float(channel.run(["python3", "-c", _READ, root, what], seconds=120).stdout)
    finally:
        channel.close()


@contextmanager
def _with_block_image(record: Record, directory: Path) -> Iterator[RawMachine]:
    """A machine started by hand, with the files of ``directory`` on a block device mounted at /mnt."""
    image = directory / "image"
    run(["truncate", "--size", f"{_IMAGE_MIB}M", str(image)])
    run(["mkfs.ext4", "-q", "-d", str(directory / "files"), str(image)])
    image.chmod(0o644)
    arguments = arguments_of(record.pid)
    block = f"driver=file,filename={image},node-name=image,read-only=on"
    argv = [*arguments.argv, "-blockdev", block, "-device", "virtio-blk-pci,drive=image"]
    with raw_machine(arguments._replace(argv=argv), None) as made:
        module = _module("virtio_blk", made.run("uname", "-r").strip())
        made.run("sh", "-c", "cat > /tmp/virtio_blk.ko && insmod /tmp/virtio_blk.ko", stdin=module)
        made.run("mount", "-t", "ext4", "-o", "ro", "/dev/vda", "/mnt")
        yield made


def _module(name: str, release: str) -> bytes:
    """A module of the guest's kernel that its image does not have."""
    wanted = packages.resolve([f"linux-image-{release}"])
    cache = packages.cache_directory()
    packages.fetch(wanted, cache, lambda _: None)
    for package in wanted:
        for path, node in packages.read_files(cache / package.file_name):
            if path.endswith(f"/{name}.ko"):
                return node.data
    raise RuntimeError(f"there is no module {name}")


def _reading(pods: _Pods, directory: Path) -> dict[str, Taken]:
    """Seconds of each way, of one large file and of small ones."""
    with pods.running() as pod:
        place = pods.runtime.root / pod
        root = f"/run/kata-runtime/shared/{pod}/mount1"

        def by_virtiofs(what: str) -> Callable[[], float]:
            return lambda: _read_in_pod(place, root, what)

        def by_block(what: str) -> Callable[[], float]:
            return lambda: float(made.run("python3", "-c", _READ, "/mnt", what))

        with _with_block_image(load_record(str(place)), directory) as made:
            return {
                what: in_turns({_VIRTIOFS: by_virtiofs(what), _BLOCK: by_block(what)}, ROUNDS)
                for what in ("big", "small")
            }


def _proportional(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def _memory(pods: _Pods) -> list[list[str]]:
    with pods.running() as pod:
        record = load_record(str(pods.runtime.root / pod))
        shim = int(json.loads(run(pods.runtime.argv("state", pod)))["pid"])
        server = record.virtiofsd
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        sizes = {
            "QEMU": memory_of(record.pid).all,
            "virtiofsd": sum(_proportional(pid) for pid in (server, *map(int, children))),
            "the container's shim": _proportional(shim),
        }
    sizes["together"] = sum(sizes.values())
    return [[name, f"{size:.0f}"] for name, size in sizes.items()]


def measure() -> None:
    """Write docs/benchmarks/containers.md."""
    directory = Path(tempfile.mkdtemp(prefix="kata-bench-containers-"))
    # QEMU, which has a user of its own, opens the image.
    directory.chmod(0o755)
    try:
        _make_files(directory / "files")
        with bench_runtime() as runtime:
            pods = _Pods(runtime, directory)
            pods.sandbox()
            taken = in_turns({_SANDBOX: pods.sandbox, _FIRST: pods.first}, _QUICK_ROUNDS)
            with pods.running() as pod:
                accelerator = load_record(str(runtime.root / pod)).accelerator
                inside = {_NEXT: lambda: pods.another(pod), _EXEC: lambda: pods.execute(pod)}
                taken |= in_turns(inside, _QUICK_ROUNDS)
            reading, memory = _reading(pods, directory), _memory(pods)
    finally:
        shutil.rmtree(directory)
    _report(accelerator, taken, reading, memory)


def _report(accelerator: str, taken: Taken, reading: dict[str, Taken], memory: list[list[str]]) -> None:
    commands = [[name, f"{statistics.median(values):.2f} s", f"{max(values):.2f} s"] for name, values in taken.items()]
    extra = statistics.median(first - alone for first, alone in zip(taken[_FIRST], taken[_SANDBOX], strict=True))
    commands.append(["the first container, beyond the sandbox", f"{extra:.2f} s", ""])
    rows = []
    for what, label in (("big", f"{_BIG_MIB} MiB"), ("small", f"{_FILES} files")):
        for way, values in reading[what].items():
            rows.append(
                [label, way, f"{statistics.median(values):.2f} s", f"{ratio(values, reading[what][_BLOCK]):.1f}"]
            )
    text = _TEXT.format(
        machine=machine(accelerator),
        commands=table(["what", "median", "slowest"], commands),
        big=_BIG_MIB,
        files=_FILES,
        size=_FILE_BYTES,
        files_table=table(["what", "through", "median", "ratio"], rows),
        memory=table(["of", "MiB"], memory),
    )
    write("containers.md", text)
