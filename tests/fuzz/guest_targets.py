"""Everything that decodes bytes out of a guest."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from tests.fuzz.target import ScriptedKernel, Target, parts
from tests.unit.typed_addresses import mac

from kata_runtime import unix_socket
from kata_runtime.cli.network_json import listed_nics
from kata_runtime.errors import ProtocolError, QemuError
from kata_runtime.guest import wire
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.crun import Crun
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.guest.netlink_block import unpack_netlink
from kata_runtime.guest.short_command import Completed
from kata_runtime.netlink import message
from kata_runtime.netlink.address import RTM_NEWADDR, dump_addresses, unpack_address
from kata_runtime.netlink.carried_config import (
    add_portable_address,
    delete_portable_address,
    portable_addresses,
    portable_route,
)
from kata_runtime.netlink.exchange import Request, attempt_all, call_each, dump_each
from kata_runtime.netlink.generic import find_family, unpack_family
from kata_runtime.netlink.link import dump_links, unpack_link
from kata_runtime.netlink.link_details import unpack_detailed_link
from kata_runtime.netlink.message import Message
from kata_runtime.netlink.neighbour import RTM_NEWNEIGH, add_neighbour, delete_neighbour, neighbours_of
from kata_runtime.netlink.route import add_route, delete_route, unpack_route, with_next_hops
from kata_runtime.netlink.transport import Block, Family
from kata_runtime.network import guest_nic, route_table
from kata_runtime.network.queues import _available_mib
from kata_runtime.sandbox.stream_relay import Relay, Streams
from kata_runtime.vmm.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NONCE = bytes(range(1, wire.NONCE_BYTES + 1))
_PIECE_BYTES = 1000
_kept: deque[socket.socket] = deque()
# Sizes of the headers before the attributes: nfgenmsg and genlmsghdr, ifaddrmsg, rtmsg, ifinfomsg.
_ATTRIBUTES_START = (4, 8, 12, 16)


def _frames(data: bytes) -> None:
    """A stream in pieces, as the decoder meets it."""
    decoder = wire.Decoder()
    for start in range(0, len(data), _PIECE_BYTES):
        with suppress(wire.FrameError):
            for raw in decoder.feed(data[start : start + _PIECE_BYTES]):
                kind, request, payload = wire.unpack_body(raw)
                assert wire.unpack_body(wire.pack_frame(kind, request, payload)[:-1]) == (kind, request, payload)


def _payloads(data: bytes) -> None:
    unpack: list[Callable[[bytes], object]] = [
        wire.unpack_done, wire.unpack_count, wire.unpack_status, wire.unpack_target, unpack_netlink,
    ]  # fmt: skip
    for each in unpack:
        with suppress(wire.FrameError):
            each(data)


def _channel(data: bytes) -> None:
    """An agent that answers HELLO, then sends ``data``, then ends; asked in the way that the first byte says."""
    how = data[0] % 5 if data else 0
    # A command in the guest is run on a second port.
    scripts = iter([b"", data[1:]] if how == 4 else [data[1:]])
    with ExitStack() as opened:
        real = unix_socket.connect, os.urandom
        unix_socket.connect = lambda path, seconds: opened.enter_context(_port(next(scripts, b"")))
        os.urandom = lambda _size: _NONCE
        try:
            _ask(AgentChannel("", ""), how)
        finally:
            unix_socket.connect, os.urandom = real


def _port(data: bytes) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        theirs.send(wire.pack_frame(wire.HELLO, 0, _NONCE + wire.VERSION.to_bytes(2, "big")) + data)
        theirs.shutdown(socket.SHUT_WR)
        # The other end stays for what is sent to it.
        _kept.append(theirs.dup())
    while len(_kept) > 2:
        _kept.popleft().close()
    return ours


def _ask(channel: AgentChannel, how: int) -> None:
    match how:
        case 0:
            block = message.pack_message(18, 0x301, 1, bytes(16))
            list(channel.exchange(Family.ROUTE, [Block(block, 1), Block(block, 1)]))
        case 1:
            list(channel.read_file("ip_vs"))
        case 2:
            channel.sysctl("net/ipv4/ip_forward")
        case 3:
            with channel.subscribe(Family.ROUTE, 1) as subscription:
                subscription.wait(lambda datagram: len(datagram) > 100, 1, "something")
        case _:
            channel.run(["cat", "/proc/meminfo"], stdin=b"x" * 10, seconds=1)


def _relayed(data: bytes) -> None:
    """An agent that answers the request for a command with ``data``, and then its VM ends."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    theirs.send(wire.pack_frame(wire.HELLO, 0, _NONCE + wire.VERSION.to_bytes(2, "big")))
    real = unix_socket.connect, os.urandom
    unix_socket.connect, os.urandom = lambda path, seconds: ours, lambda _size: _NONCE
    with ours, theirs, open(os.devnull, "r+b") as nowhere:
        try:
            port = GuestPort("")
        finally:
            unix_socket.connect, os.urandom = real
        # Only now: a relay takes what comes behind its request.
        theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        status = Relay(port, Streams(*[nowhere.fileno()] * 3), owned=False).run(wire.EXEC, b"{}")
        assert 0 <= status <= 255


class _Answering(AgentChannel):
    """A channel to a guest in which every command prints the same."""

    def __init__(self, stdout: bytes) -> None:
        self._stdout = stdout

    def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
    ) -> Completed:
        """Print it."""
        del argv, stdin, seconds
        return Completed(0, self._stdout, b"")


def _crun(data: bytes) -> None:
    """What crun and the kernel's counters say, asked in the way of the first byte."""
    crun = Crun(_Answering(data[1:]))
    match data[:1]:
        case b"s":
            crun.state("a")
        case b"p":
            crun.processes("a")
        case _:
            crun.usage("/a")


def _qmp(data: bytes) -> None:
    """A QEMU that a guest took over: it greets, then sends ``data``, then ends."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    theirs.send(b'{"QMP":{}}\n{"return":{},"id":1}\n' + data)
    theirs.shutdown(socket.SHUT_WR)
    monitor = Monitor(ours)
    try:
        monitor._greet(1)
        with monitor.listen("DEVICE_DELETED") as events:
            with suppress(QemuError):
                monitor.execute("query-status", deadline=1)
            events.wait(lambda event: event.get("device") == "nic0", 1, awaited="the end of nic0")
    finally:
        monitor.close()
        theirs.close()


def _netlink(data: bytes) -> None:
    for each in message.iter_messages(data):
        if each.type in (message.NLMSG_ERROR, message.NLMSG_DONE):
            outcome = message.unpack_outcome(each)
            assert outcome.extack.isprintable()
        for start in _ATTRIBUTES_START:
            with suppress(ProtocolError):
                for _, payload in message.iter_attributes(each.payload[start:]):
                    message.unpack_text(payload)
                    message.parse_attributes(payload)


_REQUESTS = [Request("first", 24, 0, b""), Request("second", 18, message.NLM_F_DUMP, b"")]


def _answers(data: bytes) -> None:
    """One input as the answers to three ways of asking."""
    asked: list[Callable[[ScriptedKernel], object]] = [
        lambda kernel: call_each(kernel, Family.ROUTE, _REQUESTS),
        lambda kernel: list(dump_each(kernel, Family.ROUTE, _REQUESTS, lambda _, payload: payload)),
        lambda kernel: attempt_all(kernel, Family.ROUTE, _REQUESTS, until_failure=True),
    ]
    how, *answers = list(parts(data)) or [b""]
    asked[sum(how) % len(asked)](ScriptedKernel(answers))


def _route(data: bytes) -> None:
    route = unpack_route(data)
    assert unpack_route(route.payload).payload == route.payload
    assert str(route.key.network)
    add_route(route, 0)
    delete_route(route)
    route_table.is_visible(route)
    if route.next_hops:
        with_next_hops(route, route.next_hops[:1])
        with_next_hops(route, route.next_hops[1:] or route.next_hops)


def _neighbour(data: bytes) -> None:
    for found in neighbours_of([Message(RTM_NEWNEIGH, 0, 1, data)]):
        delete_neighbour(found.interface, found.address)
        add_neighbour(found.interface, found.address, found.mac)


def _portable(data: bytes) -> None:
    """An address and a route carried to a kernel with other interfaces, as the first and the second part say."""
    address, route, *_ = [*parts(data), b"", b""]
    for found in portable_addresses([Message(RTM_NEWADDR, 0, 1, address)], {2: mac("02:42:20:6e:03:01")}):
        add_portable_address(found.payload, 7)
        delete_portable_address(found.payload, 7)
    there = unpack_route(route)
    carried = portable_route(there, {hop.interface: 7 for hop in there.next_hops})
    assert portable_route(carried, {7: 7, 0: 0}) == carried


def _route_table(data: bytes) -> None:
    """Two tables that a guest reports, and the steps from one to the other."""
    tables = [route_table.read_table(ScriptedKernel(answers)) for answers in _halves(data)]
    steps = route_table.plan(*(route_table.group(table.routes) for table in tables))
    assert len(steps) <= 2 * sum(len(table.routes) for table in tables) + 1


def _halves(data: bytes) -> list[list[bytes]]:
    answers = list(parts(data))
    return [answers[:4], answers[4:] or answers[:4]]


def _guest_nics(data: bytes) -> None:
    """A notification of a link, and the dumps of list-ifaces."""
    with suppress(ProtocolError):
        guest_nic._links_in(data)
    links, addresses = call_each(ScriptedKernel(parts(data)), Family.ROUTE, [dump_links(), dump_addresses()])
    json.loads(listed_nics(guest_nic.read_states(links, addresses)))


def _family(data: bytes) -> None:
    with suppress(ProtocolError):
        unpack_family(data)
    find_family(ScriptedKernel([data]), "IPVS")


_TARGETS: list[tuple[str, Callable[[bytes], Any]]] = [
    ("channel", _channel),
    ("relay", _relayed),
    ("crun", _crun),
    ("frames", _frames),
    ("payloads", _payloads),
    ("qmp", _qmp),
    ("netlink", _netlink),
    ("answers", _answers),
    ("link", unpack_link),
    ("detailed_link", unpack_detailed_link),
    ("address", unpack_address),
    ("route", _route),
    ("neighbour", _neighbour),
    ("portable", _portable),
    ("route_table", _route_table),
    ("guest_nics", _guest_nics),
    ("family", _family),
    ("meminfo", _available_mib),
]
GUEST_TARGETS = [Target(name, feed) for name, feed in _TARGETS]
