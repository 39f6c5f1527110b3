"""A signal at any step of run: nothing runs that no record names, and nothing hangs."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.system.start.conftest import NOTHING, SECONDS

if TYPE_CHECKING:
    from tests.system.start.conftest import Fake

# Every step that makes something or makes it known; the signal is sent before and after each.
_STEPS = (
    "os.mkdir", "os.fork", "os.pidfd_open", "os.execv", "os.replace", "os.write", "os.waitpid", "shutil.rmtree",
    "channel.GuestPort", "boot.cgroup.join", "lifecycle.boot", "lifecycle.end_processes", "lifecycle.cgroup.remove",
    "cli.write_line",
)  # fmt: skip
_SIGNALLED = """
import os, shutil, signal
from functools import wraps
from kata_runtime.cli import lifecycle_commands as cli
from kata_runtime.guest import channel
from kata_runtime.sandbox import boot, cgroup

me = os.getpid()

def step(path, moment, number, at):
    *owners, name = path.split(".")
    owner = globals()[owners[0]]
    for each in owners[1:]:
        owner = getattr(owner, each)
    original = getattr(owner, name)
    count = 0
    @wraps(original)
    def counted(*args, **kwargs):
        nonlocal count
        if os.getpid() != me:
            return original(*args, **kwargs)
        count += 1
        mine = count
        if mine == at and moment == "before":
            os.kill(me, number)
        try:
            return original(*args, **kwargs)
        finally:
            if mine == at and moment == "after" and os.getpid() == me:
                os.kill(me, number)
    setattr(owner, name, counted)

step({path!r}, {moment!r}, {number}, {at})
"""
_TIMES = 3
_SETTLE_SECONDS = 10.0


def _await_end(pid: int) -> None:
    """Wait for a process that ends by itself."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(process, select.POLLIN)
        assert poller.poll(_SETTLE_SECONDS * 1000), pid
    finally:
        os.close(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_at_any_step(number: signal.Signals, fake: Fake, other_fake: Fake) -> None:
    """INT and TERM undo the start whole, or come too late; after KILL QEMU ends by itself, and delete is enough."""
    with ThreadPoolExecutor(2) as pool:
        reached = sum(pool.map(partial(_try_steps, number), ("before", "after"), (fake, other_fake)))
    assert reached >= 30


def _try_steps(number: signal.Signals, moment: str, fake: Fake) -> int:
    """Send the signal at this moment of every step; how many of the steps came."""
    reached = 0
    for path in _STEPS:
        for at in range(1, _TIMES + 1):
            code = _SIGNALLED.format(path=path, moment=moment, number=int(number), at=at)
            done = subprocess.run(
                fake.argv("run", "-d", "web", code=code), capture_output=True, text=True, timeout=SECONDS, check=False
            )
            where = (path, moment, at, done.returncode, done.stdout, done.stderr)
            if done.returncode == 0:
                # Too late to end it, or never so far.
                assert done.stdout == "web\n", where
                assert json.loads(fake.cli("state", "web")[1])["status"] == "running", where
                assert fake.cli("delete", "--force", "web") == (0, "", ""), where
            elif number == signal.SIGKILL:
                assert done.returncode == -signal.SIGKILL, where
                _check_killed(fake, done.stdout, where)
            else:
                assert done.returncode == 128 + number, where
                told = f"kata-runtime: ended by {number.name}; its change is made whole or not at all\n"
                assert done.stderr == told, where
            assert fake.left("web") == NOTHING, where
            if done.returncode == 0:
                break
            reached += 1
    return reached


def _check_killed(fake: Fake, printed: str, where: tuple[object, ...]) -> None:
    """What a killed start leaves can be listed and deleted; without --force when the guest was not up."""
    there = json.loads(fake.cli("list", "--format", "json")[1])
    if not there:
        return
    record = fake.root / "web/record.json"
    ready = record.exists() and json.loads(record.read_text())["ready"]
    assert ready or not printed, where
    if not ready:
        for pid in fake.processes("web"):
            _await_end(pid)
        assert json.loads(fake.cli("state", "web")[1])["status"] == "stopped", where
    words = ["delete", "--force", "web"] if ready else ["delete", "web"]
    assert fake.cli(*words) == (0, "", ""), where
