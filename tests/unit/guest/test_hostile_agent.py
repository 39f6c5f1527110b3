"""The host's side of the channel against agents that lie: one error, before a deadline, in little memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from tests.unit.guest.scripted import Agent, scripted_agent

from kata_runtime.errors import DeadlineError, GuestError, KataError, KernelError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.guest.answer_limits import Limits
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.message import pack_message
from kata_runtime.netlink.transport import Family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Deed = Callable[[AgentChannel], object]

_MIB = 1 << 20
_SECONDS = 0.2
# A command gives up this much later than its deadline at most, on a busy machine.
_GRACE_SECONDS = 5.0
_LIMITS = Limits(
    connect_seconds=_SECONDS,
    request_seconds=_SECONDS,
    answer_seconds=_SECONDS,
    exchange_seconds=_SECONDS,
    answer_bytes=2 * _MIB,
    notifications=100,
    notification_bytes=2 * _MIB,
    output_bytes=_MIB,
)
_MEMORY = 8 * _MIB


def _forever(agent: Agent, kind: int, payload: bytes) -> None:
    """The same frame to the first request, without end."""
    _, request, _ = agent.receive()
    data = wire.pack_frame(kind, request, payload) * 8
    while True:
        agent.raw(data)


def _trickle(agent: Agent) -> None:
    """A frame that comes a byte at a time."""
    agent.receive()
    while True:
        agent.raw(b"x")


def _silence(agent: Agent) -> None:
    while True:
        agent.receive()


def _end(agent: Agent) -> None:
    agent.receive()
    agent.close()


def _answer(kind: int, payload: bytes = b"", *, request: int | None = None) -> Callable[[Agent], None]:
    def play(agent: Agent) -> None:
        _, asked, _ = agent.receive()
        agent.send(kind, asked if request is None else request, payload)
        agent.receive()

    return play


def _netlink(channel: AgentChannel) -> object:
    return call(channel, Family.ROUTE, dump_links())


def _file(channel: AgentChannel) -> object:
    return sum(map(len, channel.read_file("ip_vs")))


def _sysctl(channel: AgentChannel) -> object:
    return channel.sysctl("kernel/ostype")


def _subscription(channel: AgentChannel) -> object:
    with channel.subscribe(Family.ROUTE, 1) as subscription:
        subscription.wait(lambda _: False, _SECONDS, "the NIC's arrival")
    return None


def _run(channel: AgentChannel) -> object:
    return channel.run(["cat", "/proc/meminfo"], b"input" * 100_000, seconds=_SECONDS)


_DEEDS: dict[str, Deed] = {
    "netlink": _netlink, "file": _file, "sysctl": _sysctl, "subscription": _subscription, "run": _run,
}  # fmt: skip
_ROWS = pack_message(16, 2, 1, bytes(300)) * 100
_SCRIPTS: dict[str, Callable[[Agent], None]] = {
    "rows without end": lambda agent: _forever(agent, wire.DATA, _ROWS),
    "empty pieces without end": lambda agent: _forever(agent, wire.DATA, b""),
    "large pieces without end": lambda agent: _forever(agent, wire.DATA, bytes(200_000)),
    "notifications without end": lambda agent: _forever(agent, wire.NOTIFY, bytes(1400)),
    "empty notifications without end": lambda agent: _forever(agent, wire.NOTIFY, b""),
    "output without end": lambda agent: _forever(agent, wire.STDOUT, bytes(1000)),
    "HELLO without end": lambda agent: _forever(agent, wire.HELLO, bytes(wire.NONCE_BYTES + 2)),
    "room for input without end": lambda agent: _forever(agent, wire.STDIN_TAKEN, b"\xff" * 4),
    "one byte at a time": _trickle,
    "a frame without end": lambda agent: _forever(agent, wire.DATA, b"x" * (wire.MAX_BODY_BYTES + 1)),
    "nothing": _silence,
    "the end": _end,
    "a short DONE": _answer(wire.DONE, b"\0"),
    "an errno that none is": _answer(wire.DONE, b"\xff\xff\xff\xff"),
    "a short EXIT": _answer(wire.EXIT, b"\0"),
    "a short STDIN_TAKEN": _answer(wire.STDIN_TAKEN, b"\0"),
    "another request's DONE": _answer(wire.DONE, wire.pack_done(0), request=77),
    "STARTED": _answer(wire.STARTED, b""),
    "an unknown kind": _answer(200, b""),
    "a message that is cut": _answer(wire.DATA, _ROWS[:-1]),
    "a message of another sequence": _answer(wire.DATA, pack_message(3, 2, 9, bytes(4))),
}


def _fails(deed: Callable[[], object]) -> KataError:
    """The error in which a deed ends, soon and without holding much."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(KataError) as failure:
            deed()
        assert time.monotonic() - began < _SECONDS + _GRACE_SECONDS
        assert tracemalloc.get_traced_memory()[1] < _MEMORY
    finally:
        tracemalloc.stop()
    return failure.value


@pytest.mark.parametrize("script", _SCRIPTS.values(), ids=_SCRIPTS.keys())
@pytest.mark.parametrize("deed", _DEEDS.values(), ids=_DEEDS.keys())
def test_lies(tmp_path: Path, deed: Deed, script: Callable[[Agent], None]) -> None:
    """Whatever an agent answers to whatever request, the command has one error, in time, in little memory."""

    def play(agent: Agent) -> None:
        agent.greet()
        script(agent)

    with scripted_agent(tmp_path / "port", play) as path:
        channel = AgentChannel(path, path, _LIMITS)
        try:
            _fails(lambda: deed(channel))
        finally:
            channel.close()


def _connect(path: str) -> object:
    return GuestPort(path, seconds=_SECONDS)


def _too_short(agent: Agent) -> None:
    agent.greet(b"\0")
    _silence(agent)


def _other_version(agent: Agent) -> None:
    agent.greet(b"\0\x01")
    _silence(agent)


def _wrong_nonce(agent: Agent) -> None:
    agent.receive()
    while True:
        agent.send(wire.HELLO, 0, bytes(wire.NONCE_BYTES) + b"\0\2")


def _garbage(agent: Agent) -> None:
    agent.receive()
    while True:
        agent.raw(b"\xdb\xc0\xc0garbage\xc0\xdb" * 100)


_LATE = f"an answer of the guest's agent did not happen within {_SECONDS} s; "
_LATE += "the guest may be hung: see its console.log, or delete the container"
_OLD = f"the agent speaks version 1, this runtime {wire.VERSION}; build the guest image again "
_OLD += "(kata-runtime image build) and restart the container"
_ENDED = "the guest's VM ended; the end of its console.log says why, unless the container was deleted"


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (_too_short, ProtocolError, "the guest's agent sent a version of 1 bytes"),
        (
            _other_version,
            GuestError,
            _OLD,
        ),
        (_wrong_nonce, DeadlineError, _LATE),
        (_garbage, DeadlineError, _LATE),
        (_silence, DeadlineError, _LATE),
        (_trickle, DeadlineError, _LATE),
        (_end, GuestError, _ENDED),
    ],
)
def test_greetings(tmp_path: Path, script: Callable[[Agent], None], kind: type[KataError], message: str) -> None:
    """What is wrong with the answer to HELLO is reported, and an agent that keeps talking extends no deadline."""
    with scripted_agent(tmp_path / "port", script) as path:
        failure = _fails(lambda: _connect(path))
    assert (type(failure), str(failure)) == (kind, message)


def _subscribed(payload: bytes) -> Callable[[Agent], None]:
    """Notifications without end to a subscription, and no answer to the next request."""

    def play(agent: Agent) -> None:
        agent.greet()
        _, request, _ = agent.receive()
        agent.send(wire.DONE, request, wire.pack_done(0))
        data = wire.pack_frame(wire.NOTIFY, request, payload) * 8
        while True:
            agent.raw(data)

    return play


@pytest.mark.parametrize("size", [0, 100_000])
def test_kept_notifications_are_bounded(tmp_path: Path, size: int) -> None:
    """Notifications that come while something else is awaited are kept up to a number and a size."""
    with scripted_agent(tmp_path / "port", _subscribed(bytes(size))) as path:
        channel = AgentChannel(path, path, _LIMITS)

        def deed() -> None:
            with channel.subscribe(Family.ROUTE, 1):
                channel.sysctl("kernel/ostype")

        assert str(_fails(deed)) == "the guest sent more notifications than are kept"
        channel.close()


def test_awaited_notifications_have_a_deadline(tmp_path: Path) -> None:
    """Notifications of something else, without end, do not extend the wait for the one that is awaited."""
    with scripted_agent(tmp_path / "port", _subscribed(b"another")) as path:
        channel = AgentChannel(path, path, _LIMITS)
        assert str(_fails(lambda: _subscription(channel))) == f"the NIC's arrival did not happen within {_SECONDS} s"
        channel.close()


def test_a_lost_subscription_is_told(tmp_path: Path) -> None:
    """After a request that failed, and with it the connection, waiting for a notification fails at once."""

    def play(agent: Agent) -> None:
        agent.greet()
        _, request, _ = agent.receive()
        agent.send(wire.DONE, request, wire.pack_done(0))
        agent.receive()
        agent.send(wire.DONE, 77, wire.pack_done(0))
        _silence(agent)

    with scripted_agent(tmp_path / "port", play) as path:
        channel = AgentChannel(path, path, _LIMITS)
        with channel.subscribe(Family.ROUTE, 1) as subscription:
            with pytest.raises(ProtocolError, match="out of turn"):
                channel.sysctl("kernel/ostype")
            with pytest.raises(GuestError) as failure:
                subscription.wait(lambda _: True, _SECONDS, "nothing")
        assert str(failure.value) == "a subscription to the guest's notifications ended with its connection; try again"
        channel.close()


def test_texts_are_bounded(tmp_path: Path) -> None:
    """A sentence of the guest's in an error has a bounded length."""

    def play(agent: Agent) -> None:
        agent.greet()
        _answer(wire.DONE, wire.pack_done(1, "x" * 9999))(agent)

    with scripted_agent(tmp_path / "port", play) as path:
        channel = AgentChannel(path, path, _LIMITS)
        with pytest.raises(KernelError) as failure:
            channel.sysctl("kernel/ostype")
        assert str(failure.value) == f"sysctl kernel/ostype: Operation not permitted ({'x' * 256})"
        channel.close()


@pytest.mark.parametrize("number", [1 << 31, -(1 << 40), 1 << 64])
def test_numbers_that_are_no_errno(number: int) -> None:
    """An errno that no C int holds has words all the same."""
    assert str(KernelError("list", number)) == f"list: error {number}"
