"""Commands that may open few files or have little memory, and a QEMU that is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.killing.world import look

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from tests.system.conftest import Completed, Namespace, Sandbox

# With fewer descriptors, or less memory, Python itself does not start.
_DESCRIPTORS = range(4, 12)
_MEBIBYTES = range(10, 30, 2)
_STARTED = "kata-runtime: "


@pytest.mark.parametrize(
    ("option", "limits"), [("nofile", list(_DESCRIPTORS)), ("as", [size << 20 for size in _MEBIBYTES])]
)
def test_limits_of_a_process(sandbox: Sandbox, namespace: Namespace, option: str, limits: list[int]) -> None:
    """Whatever a command lacks, it ends with its change made, or with one line, exit status 1 and nothing changed."""
    namespace.tap("tap0", "10.0.0.1/24")
    document = nic("tap0", "eth0", "10.0.0.3/24")
    before = look(sandbox)
    ended = []
    for limit in limits:
        argv = sandbox.runtime.argv("kata-network", "add-iface", sandbox.id, "-")
        argv[argv.index("env") : argv.index("env")] = ["prlimit", f"--{option}={limit}:{limit}", "--"]
        done = subprocess.run(argv, input=json.dumps(document), capture_output=True, text=True, check=False, timeout=60)
        where = (limit, done)
        if done.returncode == 0:
            assert sandbox.network("del-iface", document).stdout == "null\n", where
        elif done.stderr.startswith(_STARTED):
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "null\n", 1), where
            assert "internal error" not in done.stderr, where
        else:
            assert not done.stdout, where
        ended.append(done.returncode)
        assert look(sandbox, {before.descriptors}) == before, where
    assert {0, 1} <= set(ended)


def test_qemu_that_stands_still(sandbox: Sandbox, fresh_sandbox: Sandbox, namespace: Namespace) -> None:
    """Commands on a stopped QEMU end at their deadline with a line; when it goes on nothing has changed."""
    namespace.tap("tap0", "10.0.0.1/24")
    # Each on a sandbox of its own: on one they would wait for each other.
    sandboxes = (sandbox, fresh_sandbox)
    before = [look(each) for each in sandboxes]
    pids = [load_record(str(each.directory)).pid for each in sandboxes]

    def timed(stopped: Sandbox, verb: str, document: object) -> tuple[Completed, float]:
        start = time.monotonic()
        return stopped.network(verb, document), time.monotonic() - start

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(timed, sandboxes, ("list-routes", "add-iface"), (None, nic("tap0", "eth0"))))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    for done, seconds in ended:
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "null\n", 1), done
        assert done.stderr.startswith(_STARTED), done
        assert seconds < 30, done
    for each, its in zip(sandboxes, before, strict=True):
        assert _outcome(each.network("list-ifaces")) == (0, "null\n", "")
        assert look(each, {its.descriptors}) == its


def _outcome(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr
