"""The agent's control port over a socket pair, with this host's kernel: nothing that a client does holds others up."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from kata_runtime.guest import wire
from kata_runtime.guest.agent.control_port import Control
from kata_runtime.guest.agent.guest_port import HIGH_WATER_BYTES, Port
from kata_runtime.guest.agent.loop import Loop
from kata_runtime.guest.agent.netlink_relay import Relay
from kata_runtime.guest.agent.socket_options import SocketOptions
from kata_runtime.guest.agent.template_renewal import Renewal
from kata_runtime.guest.netlink_block import pack_netlink
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.message import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, iter_messages, pack_message

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 30.0


class Client:
    """The host's end of a control port, and the loop that serves the other end whenever the client says so."""

    def __init__(self, host: socket.socket, loop: Loop, port: Port) -> None:
        self._host = host
        self.loop = loop
        self.port = port
        self._decoder = wire.Decoder()
        self._received: list[tuple[int, int, bytes]] = []

    def send(self, kind: int, request: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self._host.sendall(wire.pack_frame(kind, request, payload))

    def greet(self) -> None:
        """Connect again."""
        nonce = os.urandom(wire.NONCE_BYTES)
        self._host.sendall(wire.OPENING)
        self.send(wire.HELLO, 0, nonce)
        while True:
            kind, _, payload = self.receive(strict=False)
            if kind == wire.HELLO and payload[:-2] == nonce:
                return

    def serve(self, turns: int) -> None:
        """Let the agent work without reading what it sends."""
        for _ in range(turns):
            # What falls due in this turn makes it wait for nothing.
            self.loop.later(0, lambda: self.loop.later(0, lambda: None))
            self.loop.run_once()

    def receive(self, *, strict: bool = True) -> tuple[int, int, bytes]:
        """The next frame that the agent sends."""
        deadline = time.monotonic() + _SECONDS
        while not self._received:
            assert time.monotonic() < deadline
            self.serve(1)
            try:
                data = self._host.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            for raw in self._decoder.feed(data):
                try:
                    self._received.append(wire.unpack_body(raw))
                except wire.FrameError:
                    assert not strict
        return self._received.pop(0)

    def answer(self, request: int) -> bytes:
        """The whole answer to a request, which must be next."""
        pieces: list[bytes] = []
        while True:
            kind, of, payload = self.receive()
            assert of == request
            if kind == wire.DONE:
                assert wire.unpack_done(payload) == (0, "")
                return b"".join(pieces)
            assert kind == wire.DATA
            pieces.append(payload)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client that has greeted."""
    host, guest = socket.socketpair()
    loop = Loop()
    with host, guest:
        guest.setblocking(False)
        port = Port(guest.fileno())
        made = Client(host, loop, port)
        relay, options, renewal = Relay(), SocketOptions(), Renewal(os.devnull)
        Control(port, loop, relay, options, renewal)
        made.greet()
        yield made
        for used in (relay, options, renewal):
            used.close()


def _dumps(last: int, count: int = 1) -> bytes:
    """``count`` dumps of the links, the last one with the sequence ``last``."""
    asked = dump_links()
    block = b"".join(
        pack_message(asked.type, NLM_F_REQUEST | NLM_F_DUMP, sequence, asked.payload)
        for sequence in range(last - count + 1, last + 1)
    )
    return pack_netlink(0, last, block, one_by_one=True)


def _ends(answer: bytes) -> list[int]:
    return [message.sequence for message in iter_messages(answer) if message.type == NLMSG_DONE]


# A link has 1.4 KB: an answer that is larger than what a port holds back.
_LARGE = _dumps(3000, 3000)


def test_a_client_that_does_not_read_holds_nobody_up(client: Client) -> None:
    """An answer that nobody reads pauses, bounded; other calls of the loop go on; read later, it is whole."""
    client.send(wire.NETLINK, 1, _LARGE)
    client.serve(100)
    assert HIGH_WATER_BYTES <= client.port.backlog < 2 * HIGH_WATER_BYTES
    paused = client.port.backlog
    called: list[int] = []
    client.loop.later(0, lambda: called.append(1))
    client.serve(50)
    assert (called, client.port.backlog) == ([1], paused)
    assert _ends(client.answer(1)) == list(range(1, 3001))


def test_a_small_answer_is_one_write() -> None:
    """The only piece of an answer and its end reach the host together: each write interrupts it."""
    host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop, relay, options, renewal = Loop(), Relay(), SocketOptions(), Renewal(os.devnull)
    with host, guest:
        guest.setblocking(False)
        Control(Port(guest.fileno()), loop, relay, options, renewal)
        assert [host.recv(1 << 16)[:2] for _ in range(2)] == [wire.OPENING, bytes([wire.HELLO, 0])]
        host.send(wire.pack_frame(wire.READ, 3, b"protocols"))
        loop.run_once()
        answer = host.recv(1 << 16)
    assert [wire.unpack_body(raw)[:2] for raw in wire.Decoder().feed(answer)] == [(wire.DATA, 3), (wire.DONE, 3)]


def test_requests_wait_for_the_one_before(client: Client) -> None:
    """Requests behind a large answer are answered after it, in order, each with its own answer."""
    client.send(wire.NETLINK, 1, _LARGE)
    client.send(wire.NETLINK, 2, _dumps(7))
    client.send(wire.READ, 3, b"protocols")
    client.send(wire.SYSCTL, 4, b"kernel/ostype")
    client.serve(100)
    assert len(client.answer(1)) > HIGH_WATER_BYTES
    assert _ends(client.answer(2)) == [7]
    assert client.answer(3).startswith(b"protocol ")
    assert client.receive() == (wire.DONE, 4, wire.pack_done(0, "Linux"))


def test_a_new_client_drops_what_was_under_way(client: Client) -> None:
    """After a HELLO nothing of the previous client's answers and waiting requests follows."""
    for request in range(1, 6):
        client.send(wire.NETLINK, request, _LARGE)
    client.serve(100)
    client.greet()
    client.send(wire.SYSCTL, 9, b"kernel/ostype")
    assert client.receive() == (wire.DONE, 9, wire.pack_done(0, "Linux"))
    client.send(wire.NETLINK, 10, _dumps(7))
    assert _ends(client.answer(10)) == [7]


def test_too_many_requests_are_refused(client: Client) -> None:
    """A client that sends ever more requests without reading does not fill the guest's memory."""
    for request in range(1, 500):
        client.send(wire.NETLINK, request, _LARGE)
        client.serve(1)
    client.serve(100)
    assert client.port.backlog < 2 * HIGH_WATER_BYTES
    client.greet()
    client.send(wire.SYSCTL, 9, b"kernel/ostype")
    assert client.receive() == (wire.DONE, 9, wire.pack_done(0, "Linux"))


def test_a_large_answer_lets_others_have_their_turn(client: Client) -> None:
    """While an answer goes on to a client that reads, calls of other ports come between its pieces."""
    pieces: list[int] = []
    calls: list[int] = []

    def call() -> None:
        calls.append(len(pieces))
        client.loop.later(0, call)

    client.loop.later(0, call)
    client.send(wire.NETLINK, 1, _LARGE)
    while client.receive()[0] == wire.DATA:
        pieces.append(1)
    assert len(set(calls)) > 3


# include/uapi/linux/in.h
_IP_TTL, _IP_MSFILTER = 2, 41


def test_socket_options(client: Client) -> None:
    """Each option comes in its size, zero where the kernel left it alone, large ones and many of them as well."""
    asked = [(size, b"") for size in (4, 4, 10, 400_000, *[1000] * 100)]
    client.send(wire.OPTIONS, 1, wire.pack_options(_IP_TTL, asked))
    assert client.answer(1) == b"".join((64).to_bytes(4, "little").ljust(size, b"\0") for size, _ in asked)
    client.send(wire.OPTIONS, 2, wire.pack_options(_IP_TTL, []))
    assert client.answer(2) == b""
    # The kernel reads the argument: of a group that nobody joined it says so, of no group it says that too.
    group = bytes([224, 0, 0, 9]) + bytes(12)
    client.send(wire.OPTIONS, 3, wire.pack_options(_IP_MSFILTER, [(16, group)]))
    assert client.receive()[2][:4] == wire.pack_count(errno.EADDRNOTAVAIL)


@pytest.mark.parametrize(
    ("kind", "payload", "number"),
    [
        (wire.NETLINK, b"\0", 74),
        (wire.SUBSCRIBE, b"", 74),
        (wire.READ, b"../x", 22),
        (wire.OPTIONS, b"\0", 74),
        (wire.OPTIONS, wire.pack_options(_IP_MSFILTER, [(16, bytes(16))]), 22),
        (wire.OPTIONS, wire.pack_options(999, [(16, b"")]), 92),
        (77, b"", 95),
    ],
)
def test_bad_requests(client: Client, kind: int, payload: bytes, number: int) -> None:
    """A request that is broken or unknown is refused at once, not left to its deadline."""
    client.send(kind, 3, payload)
    answered, request, done = client.receive()
    assert (answered, request, wire.unpack_done(done)[0]) == (wire.DONE, 3, number)
