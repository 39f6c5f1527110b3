"""Real sandboxes, network namespaces and unique names; what a test leaves behind fails it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.ovn_lab import Lab
from scripts.ensure_images import TEST_IMAGE

from kata_runtime.guest.image import INITRD_NAME, KERNEL_NAME, packages
from kata_runtime.recovery import recover
from kata_runtime.sandbox.process import is_alive
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

PROGRAM = str(Path(sys.executable).with_name("kata-runtime"))
_SECONDS = 180
# With an end to the number: concurrent runs look for what begins with their own prefix. It is no hexadecimal digit,
# since names of TAPs that add-port makes are kt and such digits.
_PREFIX = f"kt{os.getpid()}x"
# The path: the shell of the guest would take its own ip, which knows less.
_LOOK = "for words in '-j address' '-4 route' '-6 route'; do /sbin/ip $words show || exit; done"
Completed = subprocess.CompletedProcess[str]
_APPLETS = (
    "cat", "df", "echo", "env", "head", "hostname", "httpd", "id", "ifconfig", "kill", "ls", "md5sum", "mkdir", "ps",
    "pwd", "route", "sh", "sleep", "stty", "tail", "tr", "true", "wget", "yes",
)  # fmt: skip


# Between this process and the command, since what a process has before it executes another program counts as its own
# (ru_maxrss, getrusage(2)): this one has hundreds of megabytes.
_MEASURED = """
import os, sys
report, *argv = sys.argv[1:]
pid = os.posix_spawnp(argv[0], argv, os.environ)
_, status, usage = os.wait4(pid, 0)
with open(report, "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured(argv: Sequence[str], report: Path) -> list[str]:
    """A command line that runs ``argv`` and writes to ``report`` the most memory that it had, in KiB."""
    return [sys.executable, "-I", "-S", "-c", _MEASURED, str(report), *argv]


class Namespace:
    """A network namespace of this host, with whatever the test makes in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ["nsenter", f"--net=/run/netns/{name}", "--"]

    def run(self, *argv: str, stdin: str | None = None) -> Completed:
        """Run a command in it that must succeed."""
        done = self.attempt(*argv, stdin=stdin)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done

    def attempt(self, *argv: str, stdin: str | None = None) -> Completed:
        """Run a command in it."""
        return subprocess.run(
            [*self.prefix, *argv], capture_output=True, text=True, timeout=_SECONDS, input=stdin, check=False
        )

    def tap(self, name: str, *addresses: str, mtu: int = 1500, options: tuple[str, ...] = ()) -> None:
        """A TAP that is up and has these addresses."""
        self.run("ip", "tuntap", "add", name, "mode", "tap", *options)
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        self.run("ip", "link", "set", name, "mtu", str(mtu), "up")


class Runtime:
    """The program under a root of its own; its commands run in ``namespace`` where there is one."""

    def __init__(self, root: Path, config: Path) -> None:
        self.root = root
        self.config = config
        self.namespace: Namespace | None = None

    def argv(self, *words: str) -> list[str]:
        """The command line that a user would type, as a vector."""
        prefix = [] if self.namespace is None else self.namespace.prefix
        return [*prefix, "env", f"KATA_CONF_FILE={self.config}", PROGRAM, "--root", str(self.root), *words]

    def cli(self, *words: str, stdin: str | bytes | None = None) -> Completed:
        """Run one command."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(self.argv(*words), capture_output=True, timeout=_SECONDS, input=data or b"", check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Sandbox:
    """A running sandbox."""

    def __init__(self, runtime: Runtime, container_id: str) -> None:
        self.runtime = runtime
        self.id = container_id
        self.root = runtime.root
        self.directory = runtime.root / container_id

    def cli(self, *words: str, stdin: str | bytes | None = None) -> Completed:
        """Run one command."""
        return self.runtime.cli(*words, stdin=stdin)

    def network(self, verb: str, document: object = None) -> Completed:
        """Run a kata-network command on it, with ``document`` as JSON on standard input."""
        if document is None:
            return self.cli("kata-network", verb, self.id)
        return self.cli("kata-network", verb, self.id, "-", stdin=json.dumps(document))

    def guest(self, *argv: str, stdin: str | bytes | None = None) -> Completed:
        """Run a command in the container."""
        return self.cli("exec", self.id, *argv, stdin=stdin)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Hold it as a command does."""
        with open_session(self.root, self.id, recover) as session:
            yield session

    def settle(self) -> None:
        """Let a command that changes something, though nothing about NICs, end what a killed one left."""
        done = self.cli("kata-ipvs", "cleanup", "--parameters", "-d 203.0.113.1", self.id)
        assert done.returncode == 0, done.stderr

    def monitor_objects(self) -> list[str]:
        """Everything that was plugged into the machine: devices, network back ends, character devices."""
        with self.session() as session:
            monitor = session.monitor()
            devices = monitor.execute("qom-list", {"path": "/machine/peripheral"})
            chardevs = monitor.execute("query-chardev")
            backends = monitor.execute("human-monitor-command", {"command-line": "info network"})
        assert isinstance(devices, list)
        assert isinstance(chardevs, list)
        names = [str(item["name"]) for item in devices if "root-port" not in str(item["type"])]
        return [*sorted(names), *sorted(str(item["label"]) for item in chardevs), str(backends).strip()]

    def snapshot(self) -> tuple[object, ...]:
        """All that a command could have changed: record, machine, guest."""
        done = self.guest("sh", "-c", _LOOK)
        assert (done.returncode, done.stderr) == (0, ""), done
        found, *lines = done.stdout.splitlines()
        links = [
            (
                (link["ifname"], link["address"], link["mtu"], "UP" in link["flags"]),
                [f"{row['local']}/{row['prefixlen']}" for row in link["addr_info"] if row["scope"] != "link"],
            )
            for link in json.loads(found)
        ]
        # The kernel makes link-local addresses and their routes when it sees fit, a second after a carrier.
        routes = [line for line in lines if not line.startswith("fe80")]
        record = (self.directory / "record.json").read_text()
        return (record, self.monitor_objects(), links, routes)


def nic(
    device: str, name: str, *addresses: str, mac: str = "02:42:20:6e:03:01", mtu: int = 1500, **more: object
) -> dict[str, object]:
    """The JSON of add-iface; ``addresses`` as ``172.16.0.3/16``."""
    pairs = [dict(zip(("address", "mask"), address.split("/"), strict=True)) for address in addresses]
    document: dict[str, object] = {"device": device, "name": name}
    if pairs:
        document["IPAddresses"] = pairs
    return {**document, "hwAddr": mac, "mtu": mtu, **more}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what the daemons of its lab are doing, and the ends of their logs."""
    del call
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab) and lab.directory.exists():
        report.sections.append(("Open vSwitch and OVN", lab.report()))
    return report


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """Makes names that nothing else on this host has, of at most 15 characters for a short stem."""
    numbers = count(1)
    return lambda stem: f"{_PREFIX}{stem}{next(numbers)}"


def fill_rootfs(directory: Path) -> None:
    """Put busybox into a directory, and nothing else."""
    wanted = packages.resolve(["busybox-static"])
    cache = packages.cache_directory()
    packages.fetch(wanted, cache, lambda _: None)
    (package,) = [package for package in wanted if package.name == "busybox-static"]
    busybox = dict(packages.read_files(cache / package.file_name))["bin/busybox"]
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "run", "www"):
        (directory / name).mkdir()
    (directory / "bin/busybox").write_bytes(busybox.data)
    (directory / "bin/busybox").chmod(0o755)
    for name in _APPLETS:
        (directory / "bin" / name).symlink_to("busybox")


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A directory with busybox and nothing else."""
    directory = Path(tempfile.mkdtemp(prefix="kata-rootfs-"))
    directory.chmod(0o755)
    try:
        fill_rootfs(directory)
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """A root directory for this run of the tests; whatever it still holds at the end is a failure."""
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    config = root / ".configuration.toml"
    config.write_text(
        "[hypervisor.qemu]\n"
        f'kernel = "{TEST_IMAGE / KERNEL_NAME}"\n'
        f'initrd = "{TEST_IMAGE / INITRD_NAME}"\n'
        'accelerator = "tcg"\n'
        "default_memory = 384\n"
        f'template_path = "{root / ".templates"}"\n'
    )
    made = Runtime(root, config)
    yield made
    left = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    for name in left:
        made.cli("delete", "--force", name)
    shutil.rmtree(root)
    assert left == [], "sandboxes were left behind"
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert [line for line in names.splitlines() if line.startswith(_PREFIX)] == []


@contextmanager
def booted(runtime: Runtime, container_id: str) -> Iterator[Sandbox]:
    """A sandbox that is deleted, however the block ends."""
    record = None
    try:
        done = runtime.cli("run", "--detach", container_id)
        # Also when it has more to say than it should, it may have made a sandbox.
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{container_id}\n", "")
        record = load_record(str(runtime.root / container_id))
        yield Sandbox(runtime, container_id)
    finally:
        runtime.cli("delete", "--force", container_id)
        assert record is None or not is_alive(record.pid, record.start_time)


@pytest.fixture(scope="session")
def shared_sandbox(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Sandbox]:
    """The sandbox that most tests share; ``sandbox`` makes sure that none leaves anything in it."""
    with booted(runtime, unique("shared")) as made:
        yield made


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """A running sandbox without NICs; it must be so again at the end."""
    yield shared_sandbox
    record = load_record(str(shared_sandbox.directory))
    if (record.nics, record.pending) == ((), ()):
        return
    listed = shared_sandbox.network("list-ifaces")
    for left in json.loads(listed.stdout or "null") or []:
        shared_sandbox.network("del-iface", {"name": left["name"]})
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "null\n", "")


@pytest.fixture
def fresh_sandbox(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Sandbox]:
    """A sandbox of the test's own, to be broken."""
    with booted(runtime, unique("own")) as made:
        yield made


@contextmanager
def network_namespace(name: str) -> Iterator[Namespace]:
    """A new network namespace with lo up."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def namespace(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Namespace]:
    """A private network namespace in which the test's commands run."""
    with network_namespace(unique("ns")) as made:
        runtime.namespace = made
        try:
            yield made
        finally:
            runtime.namespace = None
