"""The error for a command that crun did not start."""

from __future__ import annotations

import os
import subprocess

from kata_runtime.oci.container import RUNNING, Container
from kata_runtime.oci.exec_process import _refusal
from kata_runtime.sandbox.process import start_time_of


def _container(shim: int) -> Container:
    return Container("c1", "c1", "/b", "", {}, RUNNING, shim, start_time_of(shim) or 0)


def test_container_that_runs() -> None:
    """While the container runs, crun's reason is reported."""
    assert str(_refusal(_container(os.getpid()), "no such file")) == "no such file"


def test_container_that_ends() -> None:
    """When the container ends at that moment, the error says that, and not where crun noticed it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as shim:
        ending = _container(shim.pid)
        shim.kill()
        assert (
            str(_refusal(ending, "setns: Bad file descriptor")) == "container c1 ended before the command was started"
        )
