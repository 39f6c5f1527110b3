"""The agent in a real machine, with clients that do not behave."""

from __future__ import annotations

import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import PROGRAM

from kata_runtime.guest import wire
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.guest.netlink_block import pack_netlink
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.message import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, iter_messages, pack_message
from kata_runtime.netlink.transport import Family
from kata_runtime.sandbox.paths import SandboxPaths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Sandbox

# An exec takes half a second; an agent that is held up takes for ever.
_SECONDS = 60.0
_DUMPS = 3000


@pytest.fixture
def deaf_client(sandbox: Sandbox) -> Iterator[GuestPort]:
    """A client of the control port that asks for 4 MiB, of which the first bytes are there, and reads nothing."""
    port = GuestPort(SandboxPaths(str(sandbox.directory)).control)
    asked = dump_links()
    messages = (
        pack_message(asked.type, NLM_F_REQUEST | NLM_F_DUMP, sequence, asked.payload)
        for sequence in range(1, _DUMPS + 1)
    )
    port.send(wire.NETLINK, 1, pack_netlink(Family.ROUTE, _DUMPS, b"".join(messages), one_by_one=True))
    assert select.select([port], [], [], _SECONDS)[0]
    yield port
    port.close()


def _guest(sandbox: Sandbox, *argv: str) -> tuple[int, str, str]:
    words = [PROGRAM, "--root", str(sandbox.root), "exec", sandbox.id, *argv]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_client_that_does_not_read_delays_no_exec(sandbox: Sandbox, deaf_client: GuestPort) -> None:
    """While nobody reads a large answer, exec goes on; read at last, the answer is whole."""
    for number in range(3):
        assert _guest(sandbox, "echo", str(number)) == (0, f"{number}\n", "")
    ends = []
    deadline = time.monotonic() + _SECONDS
    while (frame := deaf_client.receive(deadline, _SECONDS, "the answer"))[0] == wire.DATA:
        ends += [message.sequence for message in iter_messages(frame[2]) if message.type == NLMSG_DONE]
    assert frame == (wire.DONE, 1, wire.pack_done(0))
    assert ends == list(range(1, _DUMPS + 1))


def test_a_client_that_did_not_read_leaves_the_port_usable(sandbox: Sandbox, deaf_client: GuestPort) -> None:
    """When such a client is gone, the next command on the same port has its own answer."""
    deaf_client.close()
    listed = sandbox.network("list-ifaces")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "null\n", "")
