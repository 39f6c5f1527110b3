"""QEMU that is killed, or does not answer, at a step of a command about NICs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import booted, nic
from tests.system.killing.tracer import MOMENTS, run_traced

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Completed, Namespace, Runtime, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
# A command waits for ten seconds at most for each thing that QEMU or the guest does not do, and gives up at the first.
_BOUND_SECONDS = 45.0


@pytest.mark.parametrize("name", ["add-iface", "del-iface"])
def test_killed(runtime: Runtime, namespace: Namespace, unique: Callable[[str], str], name: str) -> None:
    """The command says so in one line, or had done its work; the sandbox is stopped, and can be deleted whole."""
    namespace.tap("tap0", "10.0.0.1/24")
    with booted(runtime, unique("steps")) as sandbox:
        calls = run_traced(_argv(sandbox, name), _given(sandbox, name)).calls
    ended: list[int] = []
    for at in range(0, len(calls), max(1, len(calls) // 6)):
        with booted(runtime, unique("dead")) as sandbox:
            pid = load_record(str(sandbox.directory)).pid
            given = _given(sandbox, name)
            moment = MOMENTS[len(ended) % 2]
            done = run_traced(_argv(sandbox, name), given, at=at, moment=moment, victim=pid, seconds=_BOUND_SECONDS)
            where = (at, moment, calls[at], done)
            lines = done.stderr.splitlines()
            assert (done.hung, done.status, len(lines)) in ((False, 0, 0), (False, 1, 1)), where
            assert all(line.startswith("kata-runtime: ") and "internal error" not in line for line in lines), where
            stopped = f"kata-runtime: container {sandbox.id} is stopped"
            listed = sandbox.network("list-ifaces")
            assert (listed.returncode, listed.stdout, listed.stderr.startswith(stopped)) == (1, "null\n", True), listed
            assert json.loads(sandbox.cli("state", sandbox.id).stdout)["status"] == "stopped", where
            assert _outcome(sandbox.cli("delete", sandbox.id)) == (0, "", ""), where
            ended.append(done.status)
    # Nobody holds the TAP any more.
    with booted(runtime, unique("next")) as sandbox:
        assert sandbox.network("add-iface", _NIC).stderr == ""
    assert set(ended) == {0, 1}
    assert not [entry for entry in os.listdir(runtime.root) if "dead" in entry]


def _argv(sandbox: Sandbox, name: str) -> list[str]:
    return sandbox.runtime.argv("kata-network", name, sandbox.id, "-")


def _given(sandbox: Sandbox, name: str) -> bytes:
    """The command's input, when the sandbox is ready for it."""
    if name == "del-iface":
        assert sandbox.network("add-iface", _NIC).stderr == ""
    return json.dumps(_NIC).encode()


def _outcome(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# Stops QEMU when the command has sent it the request given, so that it has it and does not answer.
_STOPPING = """
import os, signal, sys
pid, command = int(sys.argv.pop(1)), sys.argv.pop(1)
from kata_runtime.vmm import monitor

monitor.COMMAND_SECONDS = 1.0
monitor.Monitor.execute.__defaults__ = (None, 1.0)
send = monitor.Monitor._send

def stopping(self, data, descriptors, end):
    if f'"{command}"'.encode() in data:
        os.kill(pid, signal.SIGSTOP)
    return send(self, data, descriptors, end)

monitor.Monitor._send = stopping
from kata_runtime.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("request_sent", ["device_del", "netdev_del"])
def test_stopped_before_it_answers(sandbox: Sandbox, namespace: Namespace, request_sent: str) -> None:
    """A QEMU that carries a removal out only after the command gave up leaves nothing half-removed behind."""
    namespace.tap("tap0", "10.0.0.1/24")
    before = sandbox.snapshot()
    given = _given(sandbox, "del-iface")
    pid = load_record(str(sandbox.directory)).pid
    argv = _argv(sandbox, "del-iface")
    program = argv.index("--root") - 1
    argv[program : program + 1] = [sys.executable, "-c", _STOPPING, str(pid), request_sent]
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=False, check=False, timeout=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    reason = f"kata-runtime: QEMU's answer to {request_sent} did not happen within 1 s\n"
    assert (done.returncode, json.loads(done.stdout)["name"], done.stderr.decode()) == (1, "eth0", reason)
    assert _outcome(sandbox.network("list-ifaces")) == (0, "null\n", "")
    # The next command about NICs ends what is pending; the device, its name and its MAC are free then.
    assert sandbox.network("add-iface", _NIC).stderr == ""
    assert sandbox.network("del-iface", _NIC).stdout == "null\n"
    assert sandbox.snapshot() == before
