"""Container engines in a network namespace of their own, with this runtime and a root file system of busybox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any

import pytest
from conformance.podman_configuration import own_state, write_configuration, write_program
from tests.system.conftest import PROGRAM, Completed, Namespace, Runtime, network_namespace

from kata_runtime.oci.bundle import CONFIG
from kata_runtime.sandbox.mounts import mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 180
# Of the cgroups that tests ask for; another run of the tests has another.
CGROUP_PREFIX = f"kata-test-{os.getpid()}-"
_CLEANED_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


def children_of(cgroup: Path) -> set[str]:
    """The cgroups below one."""
    return {path.name for path in cgroup.iterdir() if path.is_dir()} if cgroup.is_dir() else set()


class Host:
    """What a runtime could leave behind on this host: its directory, mounts, processes and cgroups."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def traces(self) -> dict[str, list[str]]:
        """Everything that is there now."""
        processes = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if str(self.root) in command:
                    processes.append(command)
        # os.walk goes on where a group vanishes meanwhile, and Path.rglob does not.
        engines = [
            os.path.join(parent, name)
            for parent, names, _ in os.walk("/sys/fs/cgroup")
            for name in names
            if name.startswith(CGROUP_PREFIX)
        ]
        return {
            "directories": sorted(path.name for path in self.root.iterdir() if not path.name.startswith(".")),
            "mounts": mounts_below(str(self.root)),
            "processes": processes,
            "cgroups": sorted(engines),
        }

    def left(self, expected: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
        """What is there when the engine has cleaned up, which it does in a process of its own after its ``wait``.

        That is when there is nothing but what is ``expected``, or after a while.
        """
        end = time.monotonic() + _CLEANED_SECONDS
        while (traces := self.traces()) != (expected or NOTHING) and time.monotonic() < end:
            select([], [], [], _PAUSE_SECONDS)
        return traces


NOTHING: dict[str, list[str]] = {"directories": [], "mounts": [], "processes": [], "cgroups": []}


@pytest.fixture(scope="module")
def engine_namespace(unique: Callable[[str], str]) -> Iterator[Namespace]:
    """The network of an engine's host: lo, and what the engine makes."""
    with network_namespace(unique("en")) as made:
        yield made


@pytest.fixture(scope="module")
def engine_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """The runtime with a root of the engine's own, in which nothing may be left."""
    root = Path(tempfile.mkdtemp(prefix="kata-engine-"))
    made = Runtime(root, runtime.config)
    yield made
    left = Host(root).left()
    for name in left["directories"]:
        made.cli("delete", "--force", name)
    assert left == NOTHING
    shutil.rmtree(root)


def wrapper(directory: Path, runtime: Runtime, *options: str) -> Path:
    """A program that is the runtime with its configuration: not every engine passes options to all commands."""
    return write_program(directory, _command(runtime, *options))


def _command(runtime: Runtime, *options: str) -> list[str]:
    return ["env", f"KATA_CONF_FILE={runtime.config}", PROGRAM, *options]


class Bundle:
    """A directory with a config.json that spec has written, and the changes of a test."""

    def __init__(self, directory: Path, runtime: Runtime, rootfs: Path) -> None:
        self.directory = directory
        self._runtime = runtime
        self._rootfs = rootfs
        done = runtime.cli("spec", "--bundle", str(directory))
        assert (done.returncode, done.stderr) == (0, "")

    def write(self, *argv: str, cgroup: str = "", **changes: object) -> None:
        """Let the container run ``argv``."""
        document: dict[str, Any] = json.loads((self.directory / CONFIG).read_text())
        document["process"]["args"] = list(argv)
        document["root"]["path"] = str(self._rootfs)
        document["linux"]["cgroupsPath"] = cgroup
        (self.directory / CONFIG).write_text(json.dumps(document | changes))

    def mounts(self) -> list[dict[str, Any]]:
        """Its mounts."""
        found: list[dict[str, Any]] = json.loads((self.directory / CONFIG).read_text())["mounts"]
        return found

    def change(self, section: str, **changes: object) -> None:
        """Change fields of a section."""
        document = json.loads((self.directory / CONFIG).read_text())
        document[section] |= changes
        (self.directory / CONFIG).write_text(json.dumps(document))

    def namespace(self, kind: str, path: str) -> None:
        """Let the container share a namespace."""
        document = json.loads((self.directory / CONFIG).read_text())
        for entry in document["linux"]["namespaces"]:
            if entry["type"] == kind:
                entry["path"] = path
        (self.directory / CONFIG).write_text(json.dumps(document))


def quiet(argv: list[str]) -> tuple[int, str]:
    """Status and errors of a create; what it makes keeps its streams, so that no pipe would ever end."""
    with tempfile.TemporaryFile() as file:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, timeout=SECONDS, check=False
        )
        file.seek(0)
        return done.returncode, file.read().decode()


@pytest.fixture
def bundle(tmp_path: Path, engine_runtime: Runtime, rootfs: Path) -> Bundle:
    """A bundle to be filled."""
    return Bundle(tmp_path, engine_runtime, rootfs)


class Podman:
    """Podman with everything of its own in one directory."""

    def __init__(self, directory: Path, namespace: Namespace, runtime: Runtime, image: bytes) -> None:
        self.directory = directory
        self.namespace = namespace
        self.runtime = runtime
        self.image = image
        (directory / "networks").mkdir()
        networks = f'[network]\nnetwork_config_dir = "{directory}/networks"\n'
        command = _command(runtime, "--root", str(runtime.root))
        write_configuration(directory, command, networks, engine=own_state(directory))
        self._options = ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs"]

    def argv(self, *words: str) -> list[str]:
        """The command line of one command."""
        environment = ["env", f"CONTAINERS_CONF={self.directory}/containers.conf"]
        return [*self.namespace.prefix, *environment, "podman", *self._options, *words]

    def attempt(self, *words: str, stdin: bytes = b"") -> Completed:
        """Run one command."""
        done = subprocess.run(self.argv(*words), input=stdin, capture_output=True, timeout=SECONDS, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *words: str, stdin: bytes = b"") -> str:
        """What a command prints that must succeed."""
        done = self.attempt(*words, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stdout, done.stderr)
        return done.stdout

    def id_of(self, name: str) -> str:
        """A container's full ID."""
        return self.run("inspect", "--format", "{{.Id}}", name).strip()

    def commit_pause(self, name: str, archive: Path) -> None:
        """Write an archive of an image with the same files, whose containers only wait."""
        self.run("import", "--quiet", "--change", 'CMD ["/bin/sleep","1000000"]', "-", name, stdin=self.image)
        self.run("save", "--quiet", "--output", str(archive), name)
        self.run("rmi", name)

    def line_of(self, name: str) -> str:
        """The first line that a container prints, when it is there: then it is as far as that."""
        following = subprocess.Popen(self.argv("logs", "--follow", name), stdout=subprocess.PIPE, text=True)
        assert following.stdout is not None
        try:
            return following.stdout.readline()
        finally:
            following.kill()
            following.communicate()

    @contextmanager
    def removed(self, *names: str) -> Iterator[None]:
        """Remove containers and pods of these names, however the block ends."""
        try:
            yield
        finally:
            kinds: tuple[tuple[str, ...], ...] = (("pod",), ())
            ended = [self.attempt(*kind, "rm", "--force", "--time", "0", name) for name in names for kind in kinds]
            assert [done for done in ended if done.returncode] == []


@pytest.fixture(scope="module")
def podman(engine_namespace: Namespace, engine_runtime: Runtime, rootfs: Path) -> Iterator[Podman]:
    """Podman with an image ``localhost/tiny`` of the root file system."""
    directory = Path(tempfile.mkdtemp(prefix="kata-podman-"))
    pack = ["tar", "--create", "--directory", str(rootfs), "."]
    image = subprocess.run(pack, capture_output=True, check=True).stdout
    made = Podman(directory, engine_namespace, engine_runtime, image)
    try:
        done = made.attempt("import", "-", "localhost/tiny", stdin=image)
        assert done.returncode == 0, done.stderr
        yield made
        assert json.loads(made.run("ps", "--all", "--format", "json")) == []
    finally:
        made.attempt("rm", "--all", "--force", "--time", "0")
        made.attempt("system", "reset", "--force")
        shutil.rmtree(directory, ignore_errors=True)


def record_of(root: Path, container_id: str) -> dict[str, int]:
    """The record of a sandbox on disk."""
    loaded: dict[str, int] = json.loads((root / container_id / "record.json").read_text())
    return loaded


def is_running(pid: int) -> bool:
    """Whether a process is there."""
    return os.path.exists(f"/proc/{pid}")
