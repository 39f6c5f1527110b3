"""The parent's side of a shim that is killed."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from kata_runtime.errors import HostError
from kata_runtime.oci.shim import Shim


def test_shim_that_is_killed_before_it_reads() -> None:
    """When a shim ends with its request unread, the kernel resets the connection; the error says that it was killed."""
    with ExitStack() as undo:
        shim = Shim(undo, None)
        os.kill(shim.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, shim.pid, os.WSTOPPED)
        shim._channel.send(b"request")
        os.kill(shim.pid, signal.SIGKILL)
        with pytest.raises(HostError) as raised:
            shim._receive(10.0, "an answer")
    assert str(raised.value) == "the shim was killed"
