"""Bundles without an engine: run, and create that is killed at any step."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import termios
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import network_namespace
from tests.system.engines.conftest import CGROUP_PREFIX, NOTHING, SECONDS, Bundle, Host, quiet, record_of
from tests.system.killing.killed_step import killed_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Completed, Namespace, Runtime

# Whatever touches what a create that was killed could leave.
_STEPS = (
    "kata_runtime.oci.create:save_container",
    "kata_runtime.oci.create:serve_files",
    "kata_runtime.oci.virtiofs:plug_filesystem",
    "kata_runtime.sandbox.process:Child.open_gate",
    "kata_runtime.sandbox.mounts:bind",
    "kata_runtime.oci.shim:Shim.__init__",
    "kata_runtime.sandbox.cgroup:join",
    "kata_runtime.oci.create:reconcile",
    "kata_runtime.oci.shim:Shim.start",
    "kata_runtime.oci.create:_make_member_directory",
    "kata_runtime.oci.create:write_pid_file",
    "kata_runtime.oci.virtiofs:Discovery.wait",
)


def _outcome(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def _members(cgroup: str) -> list[str]:
    return Path(f"/sys/fs/cgroup/pids{cgroup}/cgroup.procs").read_text().split()


def _check_counted(runtime: Runtime, name: str, shim: int, cgroup: str) -> None:
    """Shim, QEMU and virtiofsd, which is two processes, are in the cgroup that the engine named."""
    record = record_of(runtime.root, name)
    serving = Path(f"/proc/{record['virtiofsd']}/task/{record['virtiofsd']}/children").read_text().split()
    counted = {str(pid) for pid in (shim, record["pid"], record["virtiofsd"], *serving)}
    assert (len(counted), counted - set(_members(cgroup))) == (4, set())


def test_run(bundle: Bundle, engine_runtime: Runtime) -> None:
    """run --bundle passes megabytes of input and both outputs, ends as its container does, and leaves nothing."""
    bundle.write("/bin/sh", "-c", "md5sum; echo bad >&2; exit 7")
    data = b"".join(b"%d\n" % number for number in range(1_000_000))
    argv = engine_runtime.argv("run", "--bundle", str(bundle.directory))
    done = subprocess.run(argv, input=data, capture_output=True, timeout=SECONDS, check=False)
    expected = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout
    assert (done.returncode, done.stdout, done.stderr) == (7, expected, b"bad\n")
    assert Host(engine_runtime.root).left() == NOTHING


def test_kernel_without_virtiofs(bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]) -> None:
    """Where the guest's kernel cannot have the module, create says so instead of waiting, and leaves nothing."""
    bundle.write("/bin/true")
    config = bundle.directory / "configuration.toml"
    changed = 'kernel_params = "module_blacklist=virtiofs"\ntemplate = "off"\n'
    config.write_text(engine_runtime.config.read_text() + changed)
    argv = engine_runtime.argv("--kata-config", str(config), "create", "--bundle", str(bundle.directory), unique("v"))
    reason = "modprobe: can't load module virtiofs (kernel/fs/fuse/virtiofs.ko): Operation not permitted"
    hint = "containers of engines need CONFIG_VIRTIO_FS"
    assert quiet(argv) == (1, f"kata-runtime: the container's kernel has no virtiofs: {reason}; {hint}\n")
    assert Host(engine_runtime.root).left() == NOTHING


def test_cgroup_of_systemd(bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]) -> None:
    """With --systemd-cgroup a container is counted in the scope that the engine names; then it is gone."""
    name = unique("s")
    bundle.write("/bin/sleep", "1000", cgroup=f"{name}.slice:libpod:{name}")
    argv = engine_runtime.argv("--systemd-cgroup", "create", "--bundle", str(bundle.directory), name)
    try:
        assert quiet(argv) == (0, "")
        pid = json.loads(engine_runtime.cli("state", name).stdout)["pid"]
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        assert {line.rpartition("/")[2] for line in lines if name in line} == {f"libpod-{name}.scope"}
    finally:
        engine_runtime.cli("delete", "--force", name)
    assert Host(engine_runtime.root).left() == NOTHING
    slices = [Path(mount, f"{name}.slice") for mount in Path("/sys/fs/cgroup").iterdir()]
    made = [path for path in [Path(f"/sys/fs/cgroup/{name}.slice"), *slices] if path.is_dir()]
    for path in made:
        path.rmdir()  # refused where a scope is left
    assert made != []


def _check_limits(runtime: Runtime, name: str) -> None:
    """Update, events and pause of a running container; descriptors of this host are refused."""
    limits = {"memory": {"limit": 48 << 20}, "pids": {"limit": 30}}
    assert _outcome(runtime.cli("update", "--resources", "-", name, stdin=json.dumps(limits))) == (0, "", "")
    stats = json.loads(runtime.cli("events", "--stats", name).stdout)
    assert (stats["type"], stats["id"], stats["data"]["pids"]) == ("stats", name, {"current": 1, "limit": 30})
    used = stats["data"]["memory"]["usage"]
    assert (used["limit"], 0 < used["usage"] < used["limit"]) == (48 << 20, True)
    assert stats["data"]["cpu"]["usage"]["total"] > 0
    assert [_outcome(runtime.cli(verb, name)) for verb in ("pause", "resume")] == [(0, "", "")] * 2
    refused = runtime.cli("exec", "--preserve-fds", "1", name, "true")
    assert (refused.returncode, "descriptors of this host cannot reach into a VM" in refused.stderr) == (2, True)


def _check_events(runtime: Runtime, name: str) -> None:
    """The events of a container of which a process runs out of memory, and which is killed then."""
    with _events(runtime, name) as events:
        first, second = next(events), next(events)
        assert [(each["type"], each["data"]["pids"]["current"]) for each in (first, second)] == [("stats", 1)] * 2
        # A line without end: more than the 48 MiB that the container has.
        assert runtime.cli("exec", name, "tail", "/dev/zero").returncode == 137
        assert next(each for each in events if each["type"] != "stats") == {"type": "oom", "id": name}
        assert _outcome(runtime.cli("kill", name, "KILL")) == (0, "", "")
        *_, last = events
        assert last == {"type": "exit", "id": name, "data": {"exitStatus": 137}}


def test_life_of_a_bundle(bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]) -> None:
    """State follows a container from create to delete, and what it cannot do in each of them is refused."""
    name, cgroup = unique("b"), f"/{CGROUP_PREFIX}{unique('c')}"
    bundle.write("/bin/sleep", "1000", cgroup=cgroup)
    cli = engine_runtime.cli
    pid_file = bundle.directory / "pid"
    argv = engine_runtime.argv("create", "--bundle", str(bundle.directory), "--pid-file", str(pid_file), name)
    try:
        assert quiet(argv) == (0, "")
        state = json.loads(cli("state", name).stdout)
        created_at = state.pop("created")
        pid = int(pid_file.read_text())
        assert state == {
            "ociVersion": "1.0.2", "id": name, "status": "created", "pid": pid, "bundle": str(bundle.directory),
            "annotations": {},
        }  # fmt: skip
        _check_counted(engine_runtime, name, pid, cgroup)
        assert cli("pause", name).stderr == f"kata-runtime: container {name} is created, not running\n"
        assert _outcome(cli("start", name)) == (0, "", "")
        assert cli("start", name).stderr == (
            f"kata-runtime: container {name} is running, only a created one can be started\n"
        )
        listed = [one for one in json.loads(cli("list", "--format", "json").stdout) if one["id"] == name]
        assert listed == [{**state, "status": "running", "created": created_at}]
        assert _outcome(cli("exec", name, "sh", "-c", "echo hello; exit 6")) == (6, "hello\n", "")
        _check_limits(engine_runtime, name)
        assert _outcome(cli("ps", "--format", "json", name)) == (0, f"[{pid}]\n", "")
        heading, row = (line.split(None, 3) for line in cli("ps", name).stdout.splitlines())
        assert (heading, row[1::2]) == (["PID", "USER", "STAT", "COMMAND"], ["root", "/bin/sleep 1000"])
        assert cli("delete", name).stderr == (
            f"kata-runtime: container {name} is running; "
            f"'kata-runtime kill {name} KILL' ends it, 'delete --force' does both\n"
        )
        process = os.pidfd_open(pid)
        _check_events(engine_runtime, name)
        ended = select.select([process], [], [], SECONDS)[0]
        os.close(process)
        assert (ended, json.loads(cli("state", name).stdout)["status"]) == ([process], "stopped")
    finally:
        deleted = cli("delete", "--force", name)
    assert _outcome(deleted) == (0, "", "")
    assert Host(engine_runtime.root).left() == NOTHING
    assert _outcome(cli("delete", "--force", name)) == (0, "", "")


def test_commands_in_a_container(bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str]) -> None:
    """Options of exec change user, groups, capabilities and privileges; device rules hold; addresses are random."""
    name, cli = unique("b"), engine_runtime.cli
    bundle.write("/bin/sleep", "1000")
    bundle.change(
        "linux",
        devices=[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        resources={"devices": [{"allow": False, "access": "rwm"}]},
    )
    kinds = ("bounding", "effective", "permitted")
    bundle.change("process", noNewPrivileges=False, capabilities={key: ["CAP_KILL"] for key in kinds})
    pid_file = bundle.directory / "pid"
    try:
        assert quiet(engine_runtime.argv("run", "--detach", "--bundle", str(bundle.directory), name)) == (0, "")
        assert _outcome(cli("exec", "--user", "5:6", "--additional-gids", "7", name, "id")) == (
            0, "uid=5 gid=6 groups=7\n", "",
        )  # fmt: skip
        assert cli("exec", "--user", "root", name, "id").stderr == (
            "kata-runtime: --user: 'root' is no number of a user or group; names are the container's own\n"
        )
        assert cli("exec", "--cgroup", "/../other", name, "id").stderr == (
            "kata-runtime: --cgroup: '/../other' is no path within the container's cgroup\n"
        )
        assert _status(cli("exec", name, "cat", "/proc/self/status")) == {
            "CapBnd": 0x20,
            "CapEff": 0x20,
            "NoNewPrivs": 0,
        }
        # Of the container's own program and of the command: without ADDR_NO_RANDOMIZE, which crun itself has.
        personalities = cli("exec", name, "cat", "/proc/1/personality", "/proc/self/personality")
        assert _outcome(personalities) == (0, "00000000\n00000000\n", "")
        more = ("--cap", "CAP_SYS_ADMIN", "--no-new-privs", "--pid-file", str(pid_file))
        changed = _status(cli("exec", *more, name, "cat", "/proc/self/status"))
        assert changed == {"CapBnd": 0x200020, "CapEff": 0x200020, "NoNewPrivs": 1}
        assert pid_file.read_text().isdecimal()
        assert _outcome(cli("exec", name, "sh", "-c", ": < /dev/null; : < /dev/fuse")) == (
            1, "", "sh: can't open /dev/fuse: Operation not permitted\n",
        )  # fmt: skip
    finally:
        deleted = cli("delete", "--force", name)
    assert _outcome(deleted) == (0, "", "")


def _status(done: Completed) -> dict[str, int]:
    """The fields of /proc/self/status that the test is about."""
    assert (done.returncode, done.stderr) == (0, "")
    fields = dict(line.split(":", 1) for line in done.stdout.splitlines())
    return {name: int(fields[name], 16) for name in ("CapBnd", "CapEff", "NoNewPrivs")}


def test_terminal_in_the_foreground(bundle: Bundle, engine_runtime: Runtime) -> None:
    """run relays the terminal it has to the container's, with its size; without one to hand over none is detached."""
    bundle.write("/bin/sh", "-c", "stty size; read line; echo got $line; exit 3")
    bundle.change("process", terminal=True)
    argv = engine_runtime.argv("run", "--bundle", str(bundle.directory))
    assert quiet([*argv, "--detach"]) == (
        1,
        (
            "kata-runtime: the process has a terminal and nobody to hand it to; "
            "use --console-socket, or run it in the foreground\n"
        ),
    )
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (30, 100))
    running = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    shown = b""
    while (lines := shown.count(b"\n")) < 3:
        assert select.select([master], [], [], SECONDS)[0] == [master]
        shown += os.read(master, 1024)
        if lines == 0 and b"\n" in shown:
            os.write(master, b"you\n")
    assert (running.wait(SECONDS), shown) == (3, b"30 100\r\nyou\r\ngot you\r\n")
    os.close(master)
    assert Host(engine_runtime.root).left() == NOTHING


@contextmanager
def _events(runtime: Runtime, name: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The stream of events of a container as it comes, which ends by itself and without an error."""
    argv = runtime.argv("events", "--interval", "0.2s", name)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        assert stream.stderr is not None
        try:
            yield map(json.loads, stream.stdout)
            assert (stream.wait(SECONDS), stream.stderr.read()) == (0, "")
        finally:
            stream.kill()


@contextmanager
def _pod(bundle: Bundle, runtime: Runtime, name: str) -> Iterator[int]:
    """A pod with one container; its shim's pid."""
    bundle.write("/bin/sleep", "1000")
    assert quiet(runtime.argv("create", "--bundle", str(bundle.directory), name)) == (0, "")
    try:
        yield int(json.loads(runtime.cli("state", name).stdout)["pid"])
    finally:
        runtime.cli("delete", "--force", name)


def _killed(bundle: Bundle, runtime: Runtime, name: str, step: int, moment: str) -> bool:
    """Whether a create lived long enough to be killed at this step."""
    argv = runtime.argv("create", "--bundle", str(bundle.directory), name)
    status, said = quiet(killed_command(argv, _STEPS, step, moment))
    assert status in (0, -9), said
    return status == -9


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_creation_of_a_member(
    bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str], moment: str
) -> None:
    """Wherever the create of a pod's second container is killed, delete --force leaves the pod as it was."""
    owner, member, cgroup = unique("pod"), unique("member"), f"/{CGROUP_PREFIX}{unique('c')}"
    with _pod(bundle, engine_runtime, owner) as shim:
        bundle.write("/bin/sleep", "1000", cgroup=cgroup)
        bundle.namespace("network", f"/proc/{shim}/ns/net")
        host = Host(engine_runtime.root)
        before = host.traces()
        steps = 0
        while _killed(bundle, engine_runtime, member, steps + 1, moment):
            steps += 1
            assert _outcome(engine_runtime.cli("delete", "--force", member)) == (0, "", "")
            # A shim whose pid was not noted yet ends by itself.
            assert (steps, host.left(before)) == (steps, before)
        # The last one was not killed: what was left before is in nobody's way.
        assert json.loads(engine_runtime.cli("state", member).stdout)["status"] == "created"
        assert _outcome(engine_runtime.cli("delete", "--force", member)) == (0, "", "")
        assert host.left(before) == before
        assert steps >= 9
    assert host.left() == NOTHING


@pytest.fixture
def connected(unique: Callable[[str], str]) -> Iterator[Namespace]:
    """A network namespace with a veth that has an address, as engines make them."""
    with network_namespace(unique("in")) as made:
        made.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "gw")
        made.run("ip", "address", "add", "10.96.0.3/24", "dev", "eth0")
        made.run("ip", "link", "set", "eth0", "up")
        yield made


def _network_of(namespace: Namespace) -> tuple[list[str], str]:
    """Its interfaces, and its traffic control."""
    links = sorted(link["ifname"] for link in json.loads(namespace.run("ip", "-j", "link").stdout))
    return links, namespace.run("tc", "qdisc", "show", "dev", "eth0", "ingress").stdout


def test_killed_creation_of_a_pod(
    bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str], connected: Namespace
) -> None:
    """Wherever the create of a pod's first container is killed, delete --force leaves nothing, nor in its network."""
    name = unique("pod")
    bundle.write("/bin/sleep", "1000", cgroup=f"/{CGROUP_PREFIX}killed")
    bundle.namespace("network", f"/run/netns/{connected.name}")
    host = Host(engine_runtime.root)
    before = _network_of(connected)
    steps, carried = 0, 0
    while _killed(bundle, engine_runtime, name, steps + 1, "before" if steps % 2 else "after"):
        steps += 1
        carried += _network_of(connected) != before
        assert _outcome(engine_runtime.cli("delete", "--force", name)) == (0, "", "")
        assert (steps, host.left(), _network_of(connected)) == (steps, NOTHING, before)
    assert engine_runtime.cli("delete", "--force", name).stderr == ""
    assert (host.left(), _network_of(connected)) == (NOTHING, before)
    assert (steps > 14, carried > 3) == (True, True), (steps, carried)


def _ended_within_a_second(process: int) -> bool:
    """Whether what a pidfd names ends so soon."""
    return bool(select.select([process], [], [], 1.0)[0])


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("pid", "kata-runtime: the container ended because QEMU of its VM did\n"),
        ("virtiofsd", "kata-runtime: the container ended because virtiofsd of its VM did\n"),
        ("shim", ""),
    ],
)
def test_end_of_what_a_container_stands_on(
    bundle: Bundle, engine_runtime: Runtime, unique: Callable[[str], str], victim: str, reason: str
) -> None:
    """Within a second of QEMU's, virtiofsd's or the shim's end a container ends with 137 and the reason."""
    name = unique("ends")
    bundle.write("/bin/sh", "-c", "echo ready; exec sleep 1000")
    argv = engine_runtime.argv("run", "--bundle", str(bundle.directory), name)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        shim = int(json.loads(engine_runtime.cli("state", name).stdout)["pid"])
        sandbox = record_of(engine_runtime.root, name)
        process, machine = os.pidfd_open(shim), os.pidfd_open(sandbox["pid"])
        os.kill(shim if victim == "shim" else sandbox[victim], signal.SIGKILL)
        assert _ended_within_a_second(process)
        status, (_, stderr) = running.wait(SECONDS), running.communicate()
        # The command that ran it has deleted it, and with it the VM.
        assert _ended_within_a_second(machine)
        os.close(process)
        os.close(machine)
    assert (status, stderr.decode()) == (137, reason)
    assert Host(engine_runtime.root).left() == NOTHING
