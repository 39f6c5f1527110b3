"""QEMU that is killed, or does not answer, at a step of a command about NICs."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import booted, nic
from tests.system.killing.tracer import MOMENTS, run_traced

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
            machine = os.pidfd_open(pid)
            done = run_traced(_argv(sandbox, name), given, at=at, moment=moment, victim=pid, seconds=_BOUND_SECONDS)
            where = (at, moment, calls[at], done)
            # A killed QEMU counts as running until all of its threads have ended.
            assert select.select([machine], [], [], _BOUND_SECONDS)[0], where
            os.close(machine)
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


# Stops QEMU when the command has sent it, or the guest, the request given by name or number; how many there were.
_STOPPING = """
import os, signal, sys
pid, wanted = int(sys.argv.pop(1)), sys.argv.pop(1)
from kata_runtime.guest import answer_limits, host_port
from kata_runtime.network import guest_nic
from kata_runtime.sandbox import session
from kata_runtime.vmm import monitor

monitor.COMMAND_SECONDS = guest_nic._ANSWER_SECONDS = guest_nic._ARRIVAL_SECONDS = 2.0
monitor.Monitor.execute.__defaults__ = (None, 2.0)
monitor.Monitor.connect.__func__.__defaults__ = (2.0,)
session.DEFAULT = answer_limits.Limits(connect_seconds=2.0, request_seconds=2.0)
sent = 0

def stopping(function, position):
    def send(self, *arguments):
        global sent
        named = position is not None and f'"{wanted}"'.encode() in arguments[position]
        if named or str(sent) == wanted:
            os.kill(pid, signal.SIGSTOP)
        sent += 1
        return function(self, *arguments)
    return send

monitor.Monitor._send = stopping(monitor.Monitor._send, 0)
host_port.GuestPort._queue = stopping(host_port.GuestPort._queue, None)
from kata_runtime.cli.main import main
status = main()
print(sent, file=sys.stderr)
sys.exit(status)
"""


def _stopped_at(
    sandbox: Sandbox, name: str, wanted: str, document: dict[str, object] = _NIC
) -> tuple[int, str, str, int]:
    """Status, output, errors and number of requests of a command during which QEMU is stopped; then it goes on."""
    pid = load_record(str(sandbox.directory)).pid
    argv = _argv(sandbox, name)
    program = argv.index("--root") - 1
    argv[program : program + 1] = [sys.executable, "-c", _STOPPING, str(pid), wanted]
    given = json.dumps(document)
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=_BOUND_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    *errors, sent = done.stderr.splitlines()
    return done.returncode, done.stdout, "\n".join(errors), int(sent)


@pytest.mark.parametrize("request_sent", ["device_del", "netdev_del"])
def test_stopped_before_it_answers(sandbox: Sandbox, namespace: Namespace, request_sent: str) -> None:
    """A removal that QEMU carries out after the command gave up leaves nothing half-removed, and can be repeated."""
    namespace.tap("tap0", "10.0.0.1/24")
    before = sandbox.snapshot()
    _given(sandbox, "del-iface")
    status, answer, reason, _ = _stopped_at(sandbox, "del-iface", request_sent)
    expected = f"kata-runtime: QEMU's answer to {request_sent} did not happen within 2 s"
    assert (status, json.loads(answer)["name"], reason) == (1, "eth0", expected)
    assert _outcome(sandbox.network("list-ifaces")) == (0, "null\n", "")
    # The next command about NICs ends what is pending: for the same deletion that is success.
    assert _outcome(sandbox.network("del-iface", _NIC)) == (0, "null\n", "")
    assert sandbox.network("del-iface", _NIC).returncode == 1
    assert sandbox.snapshot() == before
    # The device, its name and its MAC are free.
    assert sandbox.network("add-iface", _NIC).stderr == ""
    assert sandbox.network("del-iface", _NIC).stdout == "null\n"
    assert sandbox.snapshot() == before


def test_addition_while_it_stands_still(sandbox: Sandbox, fresh_sandbox: Sandbox, namespace: Namespace) -> None:
    """Wherever QEMU stops during add-iface, the command fails soon, and the NIC is gone when QEMU goes on."""
    namespace.tap("tap0", "10.0.0.1/24")
    namespace.tap("tap1", "10.0.1.1/24")
    status, _, errors, steps = _stopped_at(sandbox, "add-iface", "none")
    assert (status, errors) == (0, "")
    assert _outcome(sandbox.network("del-iface", _NIC)) == (0, "null\n", "")
    tried = range(0, steps, 2)
    # Most of it is waiting: half of the steps on each of two sandboxes, at the same time.
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(_try_steps, sandbox, "tap0", tried[::2]),
            pool.submit(_try_steps, fresh_sandbox, "tap1", tried[1::2]),
        ]
        statuses = {step: status for half in halves for step, status in half.result().items()}
    assert sorted(statuses) == list(tried)
    assert {statuses[step] for step in tried[:-1]} == {1}


def _try_steps(sandbox: Sandbox, device: str, steps: Iterable[int]) -> dict[int, int]:
    """Stop QEMU at each of these steps of add-iface, and check what is left; the command's exit status for each."""
    document = nic(device, "eth0", "10.0.0.3/24")
    before = sandbox.snapshot()
    statuses = {}
    for step in steps:
        status, answer, errors, _ = _stopped_at(sandbox, "add-iface", str(step), document)
        statuses[step] = status
        where = (step, status, answer, errors)
        if status == 0:
            # All was done but to end the subscription.
            assert errors == "", where
        else:
            assert (status, answer, errors.count("\n")) == (1, "null\n", 0), where
            assert re.fullmatch(r"kata-runtime: .* did not happen within 2 s(; .*)?", errors), where
            assert _outcome(sandbox.network("list-ifaces")) == (0, "null\n", ""), where
            assert sandbox.network("add-iface", document).stderr == "", where
        assert _outcome(sandbox.network("del-iface", document)) == (0, "null\n", ""), where
        assert sandbox.snapshot() == before, where
    return statuses
