"""Commands that give up in the middle of an answer cost the guest no buffer of the port (QEMU 7.2 returns none)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.system.serial_buffers import CONTROL_PORT, FIRST_EXEC_PORT, output_queue

from kata_runtime import fast_json
from kata_runtime.guest import wire
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.guest.netlink_block import pack_netlink
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.message import NLM_F_DUMP, NLM_F_REQUEST, pack_message
from kata_runtime.netlink.transport import Family
from kata_runtime.sandbox.paths import SandboxPaths

if TYPE_CHECKING:
    from tests.system.conftest import Sandbox

_SECONDS = 60.0
_TIMES = 3
# Their answer is larger than a socket's buffer.
_DUMPS = 3000


def test_an_answer_that_is_given_up(sandbox: Sandbox) -> None:
    """An answer that QEMU could not write when the command leaves loses no buffer of the control port."""
    path = SandboxPaths(str(sandbox.directory)).control
    before = output_queue(sandbox, CONTROL_PORT).kept
    for _ in range(_TIMES):
        with pytest.raises(KeyboardInterrupt), GuestPort(path) as port:
            _interrupted_answer(sandbox, port)
    assert output_queue(sandbox, CONTROL_PORT).kept == before


def test_output_that_is_given_up(sandbox: Sandbox) -> None:
    """Output that QEMU could not write when its reader leaves loses no buffer of the exec port; the command ends."""
    path = SandboxPaths(str(sandbox.directory)).exec_socket(0)
    before = output_queue(sandbox, FIRST_EXEC_PORT).kept
    for _ in range(_TIMES):
        with pytest.raises(KeyboardInterrupt), GuestPort(path) as port:
            _interrupted_output(sandbox, port)
    assert output_queue(sandbox, FIRST_EXEC_PORT).kept == before
    running = sandbox.guest("pgrep", "-f", "[y]es lost buffers")
    assert (running.returncode, running.stdout) == (1, "")


def _interrupted_answer(sandbox: Sandbox, port: GuestPort) -> None:
    """The answer to many dumps, of which nothing is read."""
    asked = dump_links()
    flags = NLM_F_REQUEST | NLM_F_DUMP
    messages = (pack_message(asked.type, flags, number, asked.payload) for number in range(1, _DUMPS + 1))
    port.send(wire.NETLINK, 1, pack_netlink(Family.ROUTE, _DUMPS, b"".join(messages), one_by_one=True))
    _await_throttling(sandbox, CONTROL_PORT)
    raise KeyboardInterrupt


def _interrupted_output(sandbox: Sandbox, port: GuestPort) -> None:
    """A command that prints without end, of which nothing is read."""
    port.send(wire.EXEC, 1, fast_json.dumps({"argv": ["yes", "lost buffers"]}).encode())
    _await_throttling(sandbox, FIRST_EXEC_PORT)
    raise KeyboardInterrupt


def _await_throttling(sandbox: Sandbox, port: int) -> None:
    """Until QEMU has a buffer that it cannot write completely."""
    deadline = time.monotonic() + _SECONDS
    earlier, now = None, output_queue(sandbox, port)
    while not (now.kept and now == earlier):
        assert time.monotonic() < deadline
        earlier, now = now, output_queue(sandbox, port)
