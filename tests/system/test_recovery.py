"""Commands that are killed at any step: the next command finds, and leaves, a consistent container."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.system.conftest import Namespace, Sandbox

# Runs the program, but kills it before (or after) the step of the given number.
_KILLED = """
import os, signal, sys
from functools import wraps

at, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
count = 0

def step(owner, name):
    original = getattr(owner, name)
    @wraps(original)
    def counted(*args, **kwargs):
        global count
        count += 1
        mine = count
        if mine == at and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return original(*args, **kwargs)
        finally:
            if mine == at and moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, counted)
"""
# A step is whatever touches the record, QEMU, the guest or the host.
_STEPS = """
from kata_runtime.guest.channel import AgentChannel, Subscription
from kata_runtime.netlink.local import LocalTransport
from kata_runtime.network import interfaces
from kata_runtime.sandbox.session import Session
from kata_runtime.vmm.monitor import Monitor
step(Session, "save")
step(Monitor, "_execute")
step(AgentChannel, "exchange")
step(Subscription, "wait")
step(LocalTransport, "exchange")
"""
_END = """
from kata_runtime.cli.main import main
sys.exit(main())
"""
_ENOUGH = 40


def killed_at(sandbox: Sandbox, step: int, moment: str, verb: str, document: object, *options: str) -> bool:
    """Whether the command lived long enough to be killed at this step."""
    words = ("kata-network", verb, sandbox.id, "-", *options)
    return command_killed_at(sandbox, step, moment, words, json.dumps(document))


def command_killed_at(
    sandbox: Sandbox, step: int, moment: str, words: Sequence[str], stdin: str = "", steps: str = _STEPS
) -> bool:
    """The same of any command; ``steps`` is code that calls ``step``."""
    argv = sandbox.runtime.argv(*words)
    program = argv.index("--root") - 1
    argv[program : program + 1] = [sys.executable, "-c", _KILLED + steps + _END, str(step), moment]
    done = subprocess.run(argv, input=stdin.encode(), capture_output=True, check=False, timeout=120)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_addition_is_undone(sandbox: Sandbox, namespace: Namespace, moment: str) -> None:
    """Wherever add-iface is killed, the NIC is afterwards there whole or not at all, and can be added."""
    namespace.tap("tap0", "10.0.0.1/24")
    document = nic("tap0", "eth0", "10.0.0.3/24")
    before = sandbox.snapshot()
    steps = 0
    for step in range(1, _ENOUGH):
        killed = killed_at(sandbox, step, moment, "add-iface", document)
        listed = json.loads(sandbox.network("list-ifaces").stdout)
        if listed is not None:
            assert listed == [{"name": "eth0", "mac": "02:42:20:6e:03:01", "ip": ["10.0.0.3/24"], "mtu": 1500}]
            assert sandbox.network("del-iface", document).stdout == "null\n"
        sandbox.settle()
        assert sandbox.snapshot() == before
        if not killed:
            break
        steps += 1
    assert 8 <= steps < _ENOUGH - 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_deletion_is_completed(sandbox: Sandbox, namespace: Namespace, moment: str) -> None:
    """Wherever del-iface is killed, the next command finds the NIC gone, or still whole."""
    namespace.tap("tap0", "10.0.0.1/24")
    document = nic("tap0", "eth0", "10.0.0.3/24")
    before = sandbox.snapshot()
    steps = 0
    for step in range(1, _ENOUGH):
        assert sandbox.network("add-iface", document).stderr == ""
        killed = killed_at(sandbox, step, moment, "del-iface", document)
        if json.loads(sandbox.network("list-ifaces").stdout) is not None:
            assert namespace.attempt("ping", "-c", "1", "-W", "5", "10.0.0.3").returncode == 0
            assert sandbox.network("del-iface", document).stdout == "null\n"
        sandbox.settle()
        assert sandbox.snapshot() == before
        if not killed:
            break
        steps += 1
    assert 4 <= steps < _ENOUGH - 1
