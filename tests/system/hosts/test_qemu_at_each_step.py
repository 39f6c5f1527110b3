"""QEMU that is killed at a step of a command about NICs."""

from __future__ import annotations

import json
import os
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
