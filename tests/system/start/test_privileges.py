"""What QEMU and its companion may do, looked at from outside, with a real machine."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kata_runtime.sandbox import cgroup
from kata_runtime.sandbox.confinement import THREADS
from kata_runtime.sandbox.identity import user_of
from kata_runtime.sandbox.paths import EXEC_PORTS, SandboxPaths
from kata_runtime.sandbox.process import processes_of
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from tests.system.conftest import Sandbox

_CONNECT = """
import os, socket, sys
os.setgroups([]), os.setresgid({user}, {user}, {user}), os.setresuid({user}, {user}, {user})
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("connected")
    except OSError as error:
        print(error.strerror)
"""


def _pids(sandbox: Sandbox) -> list[int]:
    """QEMU and the program that keeps its output."""
    qemu = load_record(str(sandbox.directory)).pid
    user = user_of(str(sandbox.directory))
    others = [pid for pid, _ in processes_of(user, f"guest={sandbox.id}".encode()) if pid != qemu]
    assert len(others) == 1
    return [qemu, *others]


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_capabilities_and_seccomp(sandbox: Sandbox) -> None:
    """Neither has a capability or can get one; both run as the sandbox's own user; QEMU's calls are filtered."""
    user = str(user_of(str(sandbox.directory)))
    expected = {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
        "NoNewPrivs": "1", "Uid": "\t".join([user] * 4), "Gid": "\t".join([user] * 4), "Groups": user,
    }  # fmt: skip
    for pid, seccomp in zip(_pids(sandbox), ("2", "0"), strict=True):
        status = _status(pid)
        assert {name: status[name] for name in (*expected, "Seccomp")} == {**expected, "Seccomp": seccomp}
        for thread in os.listdir(f"/proc/{pid}/task"):
            assert f"Seccomp:\t{seccomp}\n" in Path(f"/proc/{pid}/task/{thread}/status").read_text()


def test_limits(sandbox: Sandbox) -> None:
    """No core files, and bounded descriptors, locked memory and processes."""
    names = ("Max core file size", "Max open files", "Max locked memory", "Max processes")
    for pid in _pids(sandbox):
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        limits = {name: next(line[26:].split()[:2] for line in lines if line.startswith(name)) for name in names}
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max processes"] == [str(THREADS + 1)] * 2
        for name, most in (("Max open files", 17408), ("Max locked memory", 8 << 20)):
            soft, hard = map(int, limits[name])
            assert soft == hard <= most


def test_network_namespace(sandbox: Sandbox) -> None:
    """Both are in network namespaces of their own, with nothing but a loopback device that is down."""
    own = os.readlink("/proc/self/ns/net")
    seen = {os.readlink(f"/proc/{pid}/ns/net") for pid in _pids(sandbox)}
    assert len(seen) == 2
    assert own not in seen
    for pid in _pids(sandbox):
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert Path(f"/proc/{pid}/net/if_inet6").read_text() == ""


def _descriptors(pid: int) -> list[str]:
    """What is open, without numbers."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        found.append(re.sub(r"\[\d+\]| \(deleted\)", "", target))
    return sorted(found)


def test_descriptors(sandbox: Sandbox) -> None:
    """Each holds what it needs: QEMU its sockets, its memory and a pipe; the other the logs and its sources."""
    assert sandbox.guest("true").returncode == 0
    qemu, companion = _pids(sandbox)
    counts = {name: _descriptors(qemu).count(name) for name in set(_descriptors(qemu))}
    sockets = counts.pop("socket:")
    # A listening socket for the monitor, the control port and each exec port, the console; connections come and go.
    least = 2 + EXEC_PORTS + 1
    assert least <= sockets <= least + 2 + EXEC_PORTS
    assert counts.pop("anon_inode:[eventfd]") < 200
    # The guest's memory twice: as it was handed over, and as QEMU opened it by that descriptor.
    assert {name: number for name, number in counts.items() if not name.startswith("anon_inode:")} == {
        "/dev/null": 1, "pipe:": 2, "/memfd:guest-memory": 2,
    }  # fmt: skip
    assert set(counts) - {"/dev/null", "pipe:", "/memfd:guest-memory"} <= {
        "anon_inode:[eventpoll]", "anon_inode:[signalfd]", "anon_inode:[io_uring]",
    }  # fmt: skip
    directory = str(sandbox.directory)
    assert _descriptors(companion) == sorted(
        ["/dev/null"] * 3
        + ["/memfd:output_log", "anon_inode:[pidfd]", "pipe:", "pipe:", "socket:"]
        + [f"{directory}/console.log", f"{directory}/qemu.log"]
    )


def test_other_users_cannot_connect(sandbox: Sandbox) -> None:
    """No other user reaches a socket of the sandbox, be it nobody or another sandbox's QEMU; not even its own does."""
    there = sorted(path for path in sandbox.directory.iterdir() if path.suffix == ".sock")
    assert len(there) == 2 + EXEC_PORTS
    assert stat.S_IMODE(sandbox.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in there} == {0o600}
    own = user_of(str(sandbox.directory))
    for user in (65534, own, own + 1):
        argv = [sys.executable, "-I", "-S", "-c", _CONNECT.format(user=user), *map(str, there)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert set(done.stdout.splitlines()) == {"Permission denied"}


def test_control_groups(sandbox: Sandbox) -> None:
    """Where the host lets us, both are in groups of the sandbox's own that the record names."""
    record = load_record(str(sandbox.directory))
    name = f"kata-runtime-{sandbox.id}-{user_of(str(sandbox.directory)):x}"
    assert record.cgroups == cgroup.group_directories(name)
    for directory in record.cgroups:
        if cgroup.writable(directory):
            assert Path(directory, "cgroup.procs").read_text().split() == sorted(map(str, _pids(sandbox)), key=int)


def test_console_is_kept(sandbox: Sandbox) -> None:
    """What the guest prints after its start is in console.log, at most 128 KiB of it however much it prints."""
    script = "yes 0123456 | head -c 600000 > /dev/console; echo the end > /dev/console"
    assert sandbox.guest("sh", "-c", script).returncode == 0
    log = Path(SandboxPaths(str(sandbox.directory)).console_log)
    assert sandbox.guest("true").returncode == 0
    text = log.read_bytes()
    assert text.endswith(b"0123456\r\nthe end\r\n")
    assert 64 * 1024 <= len(text) <= 128 * 1024
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_companion_that_dies_harms_nothing(fresh_sandbox: Sandbox) -> None:
    """When the program that keeps the output is killed, the guest prints and works on, and deletion is complete."""
    qemu, companion = _pids(fresh_sandbox)
    os.kill(companion, signal.SIGKILL)
    script = "yes 0123456 | head -c 300000 > /dev/console; echo on"
    done = fresh_sandbox.guest("sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")
    assert os.readlink(f"/proc/{qemu}/exe").startswith("/usr/bin/qemu-system-")
    record = load_record(str(fresh_sandbox.directory))
    assert fresh_sandbox.cli("delete", "--force", fresh_sandbox.id).returncode == 0
    assert [place for place in record.cgroups if os.path.exists(place)] == []
