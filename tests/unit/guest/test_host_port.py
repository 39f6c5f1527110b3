"""How a connection to the agent ends: QEMU must never write to a socket that is closed, nor keep half a buffer."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.guest.scripted import Agent, scripted_agent

from kata_runtime import unix_socket
from kata_runtime.guest import host_port, wire
from kata_runtime.guest.answer_limits import DEFAULT
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.message import NLM_F_DUMP, NLM_F_REQUEST, pack_message
from kata_runtime.netlink.transport import Block, Family

if TYPE_CHECKING:
    from pathlib import Path

# More than a socket holds.
_LATE = bytes(1 << 20)
_SECONDS = 10
_PATIENCE_SECONDS = 60.0
_REQUEST = pack_message(dump_links().type, NLM_F_REQUEST | NLM_F_DUMP, 1, dump_links().payload)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine can stand still for seconds."""
    monkeypatch.setattr(host_port, "_END_SECONDS", _PATIENCE_SECONDS)


@pytest.mark.usefixtures("patient")
def test_late_output_is_taken(tmp_path: Path) -> None:
    """Everything that is written until the other end has noticed the end of the connection is still read."""
    path = tmp_path / "port.sock"
    written = []

    def late(agent: Agent) -> None:
        agent.await_end()
        agent.raw(_LATE)
        written.append(len(_LATE))
        agent.close()

    with scripted_agent(path, late) as where:
        GuestPort(where, seconds=_PATIENCE_SECONDS, deferred=True).close()
        assert written == [len(_LATE)]


@pytest.mark.usefixtures("patient")
def test_an_unfinished_answer_is_cancelled(tmp_path: Path) -> None:
    """The agent gets a HELLO and ends its answer, which is read to its end, before the connection ends."""
    path = tmp_path / "port.sock"
    ended = []

    def endless(agent: Agent) -> None:
        agent.greet()
        _, request, _ = agent.receive()
        while not agent.is_asked():
            agent.send(wire.DATA, request, bytes(1000))
        agent.greet()
        agent.await_end()
        ended.append(True)
        agent.close()

    with scripted_agent(path, endless) as where:
        channel = AgentChannel(where, where, DEFAULT._replace(connect_seconds=_PATIENCE_SECONDS))
        answer = channel.exchange(Family.ROUTE, [Block(_REQUEST, 1)])
        assert next(answer) == bytes(1000)
        channel.close()
        assert ended == [True]


@pytest.mark.parametrize("cancel", [False, True])
def test_a_silent_peer(tmp_path: Path, *, cancel: bool) -> None:
    """A peer that never ends the connection, as a stopped QEMU, is waited for as long as the deadline says."""
    path = tmp_path / "port.sock"
    with socket.socket(fileno=unix_socket.listen(str(path)).detach()):
        port = GuestPort(str(path), seconds=0.2, deferred=True)
        start = time.monotonic()
        port.close(cancel=cancel)
        assert 0.2 <= time.monotonic() - start < _SECONDS


@pytest.mark.parametrize("cancel", [False, True])
def test_a_peer_that_is_gone(tmp_path: Path, *, cancel: bool) -> None:
    """A connection that QEMU has ended is closed at once, and without an error."""
    path = tmp_path / "port.sock"
    with socket.socket(fileno=unix_socket.listen(str(path)).detach()) as listening:
        port = GuestPort(str(path), deferred=True)
        listening.accept()[0].close()
        start = time.monotonic()
        port.close(cancel=cancel)
    assert time.monotonic() - start < host_port._END_SECONDS
