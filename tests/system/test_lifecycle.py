"""run, list, state, exec, kill, delete with real machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.conftest import Completed, Runtime, Sandbox, booted

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable


def _outcome(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_life_of_a_sandbox(runtime: Runtime, unique: Callable[[str], str]) -> None:
    """State and list follow a sandbox from run to delete, and nothing of it is left."""
    name = unique("life")
    with booted(runtime, name):
        record = load_record(str(runtime.root / name))
        state = {
            "ociVersion": "1.0.2", "id": name, "status": "running", "pid": record.pid,
            "bundle": str(runtime.root / name),
        }  # fmt: skip
        assert _outcome(runtime.cli("state", name)) == (
            0,
            json.dumps(state, separators=(",", ":")) + "\n",
            "",
        )
        assert state in json.loads(runtime.cli("list", "--format", "json").stdout)
        assert name in runtime.cli("list", "--quiet").stdout.split()
        owner = os.stat(f"/proc/{record.pid}").st_uid
        assert owner != 0
        refused = runtime.cli("delete", name)
        assert _outcome(refused) == (
            1, "",
            (f"kata-runtime: container {name} is running; 'kata-runtime kill {name}' stops it, "
            "'delete --force' does both\n"),
        )  # fmt: skip
        assert _outcome(runtime.cli("run", "--detach", name)) == (
            1, "", f"kata-runtime: container {name} exists already; choose another ID or delete it\n",
        )  # fmt: skip
        assert _outcome(runtime.cli("kill", name)) == (0, "", "")
        stopped = {**state, "status": "stopped", "pid": 0}
        assert json.loads(runtime.cli("state", name).stdout) == stopped
        assert _outcome(runtime.cli("kata-network", "list-ifaces", name)) == (
            1, "null\n",
            (f"kata-runtime: container {name} is stopped: its VM has ended; "
            f"'kata-runtime delete {name}' removes what is left of it\n"),
        )  # fmt: skip
        assert _outcome(runtime.cli("delete", name)) == (0, "", "")
        assert not (runtime.root / name).exists()
        assert _outcome(runtime.cli("state", name)) == (
            1, "",
            f"kata-runtime: container '{name}' does not exist; 'kata-runtime list' shows those that do\n",
        )  # fmt: skip


def test_id_of_its_own(runtime: Runtime) -> None:
    """Without an ID, run prints one of 64 hexadecimal digits; KILL ends the machine at once."""
    done = runtime.cli("run", "--detach")
    container_id = done.stdout.strip()
    try:
        assert (done.returncode, done.stderr, len(container_id)) == (0, "", 64)
        assert set(container_id) <= set("0123456789abcdef")
        assert _outcome(runtime.cli("kill", container_id[:12], "KILL")) == (0, "", "")
        assert json.loads(runtime.cli("state", container_id[:12]).stdout)["status"] == "stopped"
    finally:
        runtime.cli("delete", "--force", container_id)


def test_exec_passes_everything(sandbox: Sandbox) -> None:
    """Standard input, output, error and the exit status of a command in the guest are this command's own."""
    data = b"".join(b"%d\n" % number for number in range(100_000))
    done = subprocess.run(
        sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", "cat; echo bad >&2; exit 7"),
        input=data, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, data, b"bad\n")
    assert _outcome(sandbox.guest("sh", "-c", "kill -9 $$")) == (137, "", "")
    assert _outcome(sandbox.guest("no-such-program")) == (
        1, "", "kata-runtime: cannot run 'no-such-program' in the container: No such file or directory\n",
    )  # fmt: skip


def test_exec_whose_output_is_lost(sandbox: Sandbox) -> None:
    """A command that succeeds although the disk took none of its output is no success; without a reader it is one."""
    argv = sandbox.runtime.argv("exec", sandbox.id, "echo", "hello")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "kata-runtime: cannot write the command's output to standard output: No space left on device\n",
    )
    for shell in ('exec "$@" >&-', '"$@" | true'):
        done = subprocess.run(["sh", "-c", shell, "sh", *argv], stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_exec_passes_signals_and_blocks_nobody(sandbox: Sandbox) -> None:
    """A signal reaches the command in the guest; until then other commands on the container are served."""
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", script),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        assert _outcome(sandbox.network("list-ifaces")) == (0, "null\n", "")
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "got it\n"
        assert running.wait(60) == 3


def test_boot_failure_shows_the_console_and_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    """A kernel that panics is reported with the last lines it printed; no process and no file stays."""
    text = runtime.config.read_text()
    config = tmp_path / "configuration.toml"
    config.write_text(text + 'kernel_params = "rdinit=/nosuch init=/nosuch"\n')
    before = sorted(runtime.root.iterdir())
    done = runtime.cli("--kata-config", str(config), "run", "--detach", "broken")
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert lines[-1] == f"kata-runtime: QEMU ended before the guest was up: {panic}"
    assert any(panic in line for line in lines[:-1])
    assert sorted(runtime.root.iterdir()) == before


def test_oops_of_the_guest_is_a_panic(sandbox: Sandbox) -> None:
    """The guest's kernel does not live on with a process that it could not end, whose end nobody would learn."""
    assert sandbox.guest("cat", "/proc/sys/kernel/panic_on_oops").stdout == "1\n"


def test_dead_machine_is_told(fresh_sandbox: Sandbox) -> None:
    """After QEMU was killed every command says that the container is stopped."""
    record = load_record(str(fresh_sandbox.directory))
    os.kill(record.pid, signal.SIGKILL)
    told = f"kata-runtime: container {fresh_sandbox.id} is stopped: its VM has ended; "
    told += f"'kata-runtime delete {fresh_sandbox.id}' removes what is left of it\n"
    while fresh_sandbox.cli("state", fresh_sandbox.id).stdout.count('"running"'):
        continue
    for verb in ("list-ifaces", "list-routes"):
        assert _outcome(fresh_sandbox.network(verb)) == (1, "null\n", told)
    assert _outcome(fresh_sandbox.guest("true")) == (1, "", told)


def test_dead_agent_comes_back(fresh_sandbox: Sandbox) -> None:
    """An agent that was killed is restarted by init; a waiting command fails, and the next one works."""
    for _ in range(3):
        killed = fresh_sandbox.guest("sh", "-c", "kill -9 $(pgrep -f '[k]ata_runtime.guest')")
        assert _outcome(killed) == (
            1, "", "kata-runtime: the guest's agent ended and was restarted; try again\n",
        )  # fmt: skip
        assert _outcome(fresh_sandbox.network("list-routes")) == (0, "null\n", "")


def test_command_in_a_deleted_container(fresh_sandbox: Sandbox) -> None:
    """A command under way when its container is deleted says that the VM ended, and does not promise a removed log."""
    with subprocess.Popen(
        fresh_sandbox.runtime.argv("exec", fresh_sandbox.id, "sh", "-c", "echo ready; sleep 1000"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        assert _outcome(fresh_sandbox.cli("delete", "--force", fresh_sandbox.id)) == (0, "", "")
        _, errors = running.communicate(timeout=60)
    said = "the guest's VM ended; the end of its console.log says why, unless the container was deleted"
    assert (running.returncode, errors) == (1, f"kata-runtime: {said}\n")
    assert not fresh_sandbox.directory.exists()
