"""Containers in the guest, made and relayed through the host's own functions."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.system.containers.shim import FAILED

from kata_runtime.guest.crun import CrunError, State, create_request

if TYPE_CHECKING:
    from tests.system.containers.conftest import Guest

_AGENT = "$(pgrep -f '[k]ata_runtime.guest')"
_MIB = 1024 * 1024


def test_life_of_a_container(guest: Guest) -> None:
    """A container is created, started and deleted; its outputs are apart, and its exit status is its own."""
    script = "cat /proc/sys/kernel/hostname; echo err >&2; cat; exit 3"
    with guest.created("sh", "-c", script) as (name, shim):
        verb, pid = shim.answer().split()
        assert (verb, guest.crun.state(name)) == ("started", State("created", int(pid)))
        guest.crun.start(name)
        with pytest.raises(CrunError) as refused:
            guest.crun.delete(name)
        assert str(refused.value) == f"the container `{name}` is not in `created` or `stopped` state"
        assert shim.outcome(b"in\n") == (3, f"{name}\nin\n".encode(), b"err\n")
        assert guest.crun.state(name) == State("stopped", 0)
        guest.crun.delete(name)
        with pytest.raises(CrunError) as gone:
            guest.crun.start(name)
        assert str(gone.value) == f"error opening file `/run/crun/{name}/status`: No such file or directory"


def test_status_of_signals(guest: Guest) -> None:
    """A signal from the host's relay and one from crun reach the program; one that kills it is 128 and its number."""
    with guest.started("sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 1000 & wait") as (_, shim):
        assert shim.stdout.readline() == b"ready\n"
        shim.notify(f"signal {signal.SIGTERM}")
        assert shim.outcome() == (5, b"", b"")
    with guest.started("sh", "-c", "sleep 1000 & echo ready; wait") as (name, shim):
        assert shim.stdout.readline() == b"ready\n"
        assert len(guest.crun.processes(name)) == 2
        guest.crun.kill(name, signal.SIGKILL, everyone=True)
        assert shim.outcome() == (137, b"", b"")


def test_commands_in_a_container(guest: Guest) -> None:
    """Commands have streams and statuses of their own, end without the container, and may be in a cgroup within its."""
    with guest.started("sleep", "1000") as (name, _), ExitStack() as stack:
        shims = [
            stack.enter_context(guest.executed(name, "sh", "-c", f"cat; echo {number} >&2; exit {number}"))
            for number in range(3)
        ]
        for number, shim in enumerate(shims):
            assert shim.answer().startswith("started ")
            assert shim.outcome(b"in") == (number, b"in", f"{number}\n".encode())
        with guest.executed(name, "sh", "-c", "kill -9 $$") as shim:
            assert shim.outcome() == (137, b"", b"")
        guest.sh(f"mkdir /sys/fs/cgroup/{name}/within")
        with guest.executed(name, "cat", "/proc/self/cgroup", cgroup="/within") as shim:
            assert shim.outcome() == (0, b"0::/within\n", b"")
        assert guest.crun.state(name).status == "running"


def test_programs_that_do_not_start(guest: Guest) -> None:
    """crun's own reason comes back, from a container as from a command in one, with a terminal and without."""
    missing = "error RefusedError executable file `nosuch` not found in $PATH: No such file or directory"
    directory = "error RefusedError open executable: Operation not permitted"
    with guest.created("nosuch") as (_, shim):
        assert shim.answer() == missing
        assert shim.outcome() == (FAILED, b"", b"")
    with guest.started("sleep", "1000") as (name, _):
        for program, reason in (("nosuch", missing), ("/tmp", directory)):
            for terminal in (None, (24, 80)):
                with guest.executed(name, program, terminal=terminal) as shim:
                    assert shim.answer() == reason
                    assert shim.outcome() == (FAILED, b"", b"")


def test_requests_that_make_no_sense(guest: Guest) -> None:
    """A bundle that is not there, an ID that is none and a payload that is not agreed are refused by name."""
    with guest.shim(create_request("x", "/nosuch", None)) as shim:
        assert shim.answer() == "error RefusedError chdir `/nosuch` failed: No such file or directory"
    request = create_request("x", "/nosuch", None)
    for change, reason in (
        ({"bundle": 3}, "bundle must be a string"),
        ({"terminal": [1, -1]}, "terminal must be rows and columns"),
    ):
        payload = json.dumps(json.loads(request.payload) | change).encode()
        with guest.shim(request._replace(payload=payload)) as shim:
            assert shim.answer() == f"error RefusedError {reason}"


def test_terminal(guest: Guest) -> None:
    """A terminal has the size asked for, reports a new one, echoes, carries all output, and can be opened again."""
    script = """
    exec </dev/null >/dev/null 2>&1; exec </dev/console >/dev/console 2>&1
    stty size; trap 'stty size >&2; exit 4' WINCH; read line; echo got $line; sleep 1000 & wait
    """
    with guest.started("sh", "-c", script, terminal=(33, 77)) as (name, shim):
        assert shim.stdout.readline() == b"33 77\r\n"
        shim.stdin.write(b"word\n")
        shim.stdin.flush()
        assert [shim.stdout.readline() for _ in range(2)] == [b"word\r\n", b"got word\r\n"]
        with guest.executed(name, "sh", "-c", "stty size; exit 6", terminal=(2, 999)) as other:
            assert other.outcome() == (6, b"2 999\r\n", b"")
        shim.notify("resize 40 100")
        assert shim.outcome() == (4, b"40 100\r\n", b"")


def _memory(guest: Guest) -> int:
    """The most memory that the agent ever had, in bytes."""
    return int(guest.sh(f"grep VmHWM /proc/{_AGENT}/status").split()[1]) * 1024


def test_many_megabytes(guest: Guest) -> None:
    """32 MiB of input and 16 MiB of output that waits for its reader arrive whole; the agent needs no memory for it."""
    block = bytes(range(256)) * 4096
    expected = hashlib.md5(block * 32, usedforsecurity=False).hexdigest()
    with guest.started("sleep", "1000") as (name, _):
        before = _memory(guest)
        with guest.executed(name, "md5sum") as shim:
            for _ in range(32):
                shim.stdin.write(block)
            assert shim.outcome() == (0, f"{expected}  -\n".encode(), b"")
        with guest.executed(name, "head", "-c", str(16 * _MIB), "/dev/zero") as shim:
            assert shim.answer().startswith("started ")
            assert guest.crun.state(name).status == "running"
            assert shim.outcome() == (0, bytes(16 * _MIB), b"")
        assert _memory(guest) - before < 2 * _MIB


def test_ends_of_streams(guest: Guest) -> None:
    """An output that the program closes ends before the program; a reader that leaves is noticed by the program."""
    with guest.started("sh", "-c", "echo last; exec >&-; cat; exit 8") as (name, shim):
        assert shim.stdout.read() == b"last\n"
        assert shim.running.poll() is None
        with guest.executed(name, "yes") as other:
            assert other.stdout.readline() == b"y\n"
            other.stdout.close()
            assert other.running.wait(60) == 128 + signal.SIGPIPE
        assert shim.outcome() == (8, b"", b"")


def test_limits(guest: Guest) -> None:
    """Memory and number of processes are limited; changed limits take effect; the OOM killer's work is reported."""
    script = "sleep 1 & sleep 1 & sleep 1 & wait"
    limits: dict[str, object] = {"memory": {"limit": 16 * _MIB}, "pids": {"limit": 5}}
    limits["cpu"] = {"quota": 50_000, "period": 100_000}
    program = "(echo two; exec cat); exec tail -c 100000000 /dev/zero"
    with guest.started("sh", "-c", program, resources=limits) as (name, shim):
        assert shim.stdout.readline() == b"two\n"
        usage = guest.crun.usage(f"/{name}")
        assert (usage.memory_limit, usage.pids_limit, usage.pids_current) == (16 * _MIB, 5, 2)
        assert 0 < usage.memory_current < 16 * _MIB
        assert guest.sh(f"cat /sys/fs/cgroup/{name}/cpu.max") == "50000 100000\n"
        with guest.executed(name, "sh", "-c", script) as other:
            assert other.outcome() == (2, b"", b"sh: can't fork: Resource temporarily unavailable\n")
        guest.crun.update(name, {"pids": {"limit": 20}})
        assert guest.crun.usage(f"/{name}").pids_limit == 20
        with guest.executed(name, "sh", "-c", script) as other:
            assert other.outcome() == (0, b"", b"")
        assert shim.outcome() == (137, b"", b"")
        assert guest.crun.usage(f"/{name}").memory_events["oom_kill"] == 1


def test_confinement(guest: Guest) -> None:
    """User, capabilities, limits, system call filter and a read-only root are what the configuration says."""
    filtered = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    changes: dict[str, dict[str, object]] = {
        "process": {
            "user": {"uid": 1000, "gid": 1001},
            "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 70, "hard": 80}],
            "noNewPrivileges": True,
        },
        "root": {"readonly": True},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [filtered]}},
    }
    script = "cat /proc/self/status; ulimit -n; echo x >/file; mkdir /tmp/x"
    with guest.created("sh", "-c", script, changes=changes) as (name, shim):
        assert shim.answer().startswith("started ")
        guest.crun.start(name)
        status, stdout, stderr = shim.outcome()
    *lines, files = stdout.decode().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    wanted = {
        "Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "NoNewPrivs": "1", "Seccomp": "2",
        "CapBnd": f"{1 << 5:016x}",
    }  # fmt: skip
    assert {key: " ".join(found[key].split()) for key in wanted} == wanted
    complaints = b"sh: can't create /file: Read-only file system\nmkdir: can't create directory '/tmp/x': "
    assert (status, files, stderr) == (1, "70", complaints + b"Invalid cross-device link\n")


def test_pause(guest: Guest) -> None:
    """A paused container does nothing until it is resumed."""
    with guest.started("cat") as (name, shim):
        guest.crun.pause(name)
        assert guest.crun.state(name).status == "paused"
        guest.crun.kill(name, signal.SIGTERM)
        assert guest.crun.state(name).status == "paused"
        guest.crun.resume(name)
        assert shim.outcome() == (0, b"", b"")


def test_host_that_goes_away(guest: Guest) -> None:
    """When the relay is killed, its container is, also one that is being made, and its command."""
    with guest.created("sh", "-c", "sleep 1000 & cat", namespaces=("uts", "mount", "cgroup")) as (name, shim):
        pid = shim.answer().split()[1]
        guest.crun.start(name)
        with guest.executed(name, "sleep", "1000") as other:
            command = other.answer().split()[1]
            other.running.kill()
            guest.sh(f"while [ -d /proc/{command} ]; do sleep 0.05; done")
        assert guest.crun.state(name).status == "running"
        shim.running.kill()
        guest.sh(f'while [ -d /proc/{pid} ] || [ -n "$(cat /sys/fs/cgroup/{name}/cgroup.procs)" ]; do sleep 0.05; done')
        assert guest.crun.state(name).status == "stopped"


def test_many_containers(guest: Guest) -> None:
    """Five containers live at once, each with its own streams and status."""
    with ExitStack() as stack:
        made = [stack.enter_context(guest.created("sh", "-c", f"cat; exit {number}")) for number in range(5)]
        for name, shim in made:
            assert shim.answer().startswith("started ")
            guest.crun.start(name)
        for number, (name, shim) in enumerate(made):
            assert shim.outcome(name.encode()) == (number, name.encode(), b"")


def test_agent_that_ends(guest: Guest) -> None:
    """The containers of an agent that was killed are deleted by its successor, and their relays are notified."""
    with guest.started("sleep", "1000") as (_, shim):
        guest.sh(f"(sleep 0.2; kill -9 {_AGENT}) >/dev/null 2>&1 &")
        assert shim.answer() == "error GuestError the guest's agent ended and was restarted; try again"
        assert shim.outcome() == (FAILED, b"", b"")
        guest.sh('while [ -n "$(ls /run/crun)" ]; do sleep 0.05; done')
