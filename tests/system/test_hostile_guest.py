"""Whole commands against an agent that sends without end: one line of error, and memory below a named limit."""

from __future__ import annotations

import os
import struct
import subprocess
from itertools import count
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import PROGRAM, measured
from tests.unit.guest.scripted import Agent, scripted_agent
from tests.unit.typed_addresses import mac

from kata_runtime.guest import wire
from kata_runtime.guest.netlink_block import unpack_netlink
from kata_runtime.ipvs import codec
from kata_runtime.netlink import message as m
from kata_runtime.sandbox.process import start_time_of
from kata_runtime.sandbox.record import NicRecord, Record, save_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Rows = Callable[[int], Iterator[bytes]]

_PEAK_KIB = 256 * 1000
_SECONDS = 120
_PIECE_BYTES = 200_000
_IPVS_FAMILY = 20


def _packed(rows: Iterator[bytes]) -> Iterator[bytes]:
    """Rows gathered to pieces as large as a frame may be."""
    held: list[bytes] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row)
        if size > _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _rows(kind: int, payload: Callable[[int], bytes], end: int | None = None) -> Rows:
    def make(sequence: int) -> Iterator[bytes]:
        for number in count() if end is None else range(end):
            yield m.pack_message(kind, 2, sequence, payload(number))
        yield m.pack_message(3, 2, sequence, bytes(4))

    return make


def _repeated(kind: int, payload: Callable[[int], bytes], end: int) -> Rows:
    """``_rows`` that are packed once: for very many dumps of the same."""
    placeholder = 0x7EADBEEF
    packed = b"".join(_rows(kind, payload, end)(placeholder))
    return lambda sequence: iter((packed.replace(struct.pack("=I", placeholder), struct.pack("=I", sequence)),))


def _link(number: int) -> bytes:
    return struct.pack("=BxHiII", 0, 1, number % 2**31 + 1, 1, 0) + m.pack_text(3, f"e{number}") + m.pack_u32(4, 1500)


def _route(number: int) -> bytes:
    head = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 3, 253, 1, 0)
    return head + m.pack_attribute(1, struct.pack(">I", number)) + m.pack_u32(4, 7)


def _service(number: int, family: int = 2) -> bytes:
    key = m.pack_u16(1, family) + m.pack_u16(2, 6) + m.pack_attribute(3, struct.pack(">I", number).ljust(16, b"\0"))
    rest = m.pack_attribute(4, b"\0\x50") + m.pack_text(6, f"s{number}") + m.pack_attribute(7, bytes(8))
    rest += m.pack_u32(8, 0) + m.pack_attribute(9, b"\xff" * 4) + m.pack_text(11, f"p{number}")
    return codec.service_payload(1, key + rest)


def _service_of_ipv6(number: int) -> bytes:
    return _service(number, 10)


def _server(number: int) -> bytes:
    numbers = b"".join(m.pack_u32(kind, 1000 + number) for kind in (4, 5, 6, 7, 8, 9))
    address = m.pack_attribute(1, struct.pack(">I", number).ljust(16, b"\0"))
    server = m.pack_u16(11, 2) + address + m.pack_attribute(2, b"\0\x50") + m.pack_u32(3, 0) + numbers
    return codec.service_payload(1, b"", server)


def _tracked(number: int) -> bytes:
    ends = m.pack_nested(1, m.pack_attribute(1, struct.pack(">I", number)), m.pack_attribute(2, bytes([10, 0, 0, 1])))
    return b"\2\0\0\0" + m.pack_nested(1, ends + m.pack_nested(2, m.pack_u8(1, 6))) + m.pack_u32(12, number)


def _lines(heading: str, line: str) -> Iterator[bytes]:
    yield heading.encode()
    for number in count():
        yield (line % {"n": number & 0xFFFFFFFF}).encode()


class Kernel:
    """Answers requests of a few kinds; ``rows`` says what each dump has, ``lines`` what the files have."""

    def __init__(self, rows: dict[int, Rows], lines: Callable[[str], Iterator[bytes]] | None) -> None:
        self._rows = rows
        self._lines = lines

    def serve(self, agent: Agent) -> None:
        """One connection."""
        agent.greet()
        while True:
            kind, request, payload = agent.receive()
            if kind == wire.NETLINK:
                self._netlink(agent, request, payload)
            elif kind == wire.READ and self._lines is not None:
                for piece in _packed(self._lines(payload.decode())):
                    agent.send(wire.DATA, request, piece)
                agent.send(wire.DONE, request, wire.pack_done(0))
            elif kind == wire.OPTIONS and self._lines is _endless_options:
                for piece in _packed(_option(*wire.unpack_options(payload))):
                    agent.send(wire.DATA, request, piece)
                agent.send(wire.DONE, request, wire.pack_done(0))
            elif kind == wire.SYSCTL:
                agent.send(wire.DONE, request, wire.pack_done(0, "1"))
            else:
                agent.send(wire.DONE, request, wire.pack_done(2))

    def _netlink(self, agent: Agent, request: int, payload: bytes) -> None:
        _, _, _, block = unpack_netlink(payload)
        for piece in _packed(row for asked in m.iter_messages(bytes(block)) for row in self._answer(asked)):
            agent.send(wire.DATA, request, piece)
        agent.send(wire.DONE, request, wire.pack_done(0))

    def _answer(self, asked: m.Message) -> Iterator[bytes]:
        if asked.type == 0x10:
            family = m.pack_u16(1, _IPVS_FAMILY) + m.pack_text(2, "IPVS") + m.pack_u32(3, 1)
            yield m.pack_message(0x10, 0, asked.sequence, b"\1\2\0\0" + family)
        elif asked.flags & m.NLM_F_DUMP == m.NLM_F_DUMP:
            which = asked.payload[0] if asked.type == _IPVS_FAMILY else asked.type
            yield from self._rows.get(which, _rows(0, _link, 0))(asked.sequence)
            return
        elif asked.type == _IPVS_FAMILY:
            yield m.pack_message(asked.type, 0, asked.sequence, b"\1\1\0\0" + m.pack_u32(1, 1) + m.pack_u32(2, 4096))
        yield m.pack_message(2, 0x100, asked.sequence, bytes(20))


_TABLE_HEADING = "IP Virtual Server\nProt\n  ->\n"
_SERVERS = _rows(_IPVS_FAMILY, _server)
_THOUSAND_SERVERS = _repeated(_IPVS_FAMILY, _server, 1000)
_SERVICES = _rows(_IPVS_FAMILY, _service)
_MANY_SERVICES = _rows(_IPVS_FAMILY, _service, 50_000)


def _table(_: str) -> Iterator[bytes]:
    head = f"{_TABLE_HEADING}TCP  [{':'.join(['0000'] * 8)}]:0050 s0  \n"
    return _lines(head, "  -> %(n)08X:0050 Masq %(n)d 1 1\n")


def _connections(_: str) -> Iterator[bytes]:
    return _lines("Pro\n", "TCP %(n)08X 8000 0A000002 0050 0A000003 0050 ESTABLISHED 899 sip " + "x" * 3000 + "\n")


def _none(_: str) -> Iterator[bytes]:
    return iter((_TABLE_HEADING.encode(),))


def _ipvs(words: str, *more: str) -> list[str]:
    return ["kata-ipvs", "ipvsadm", "--parameters", words, *more, "hostile"]


_MOST_SERVERS = 87_380  # that fit into one answer, with room for another


def _option(number: int, sizes: Sequence[int], arguments: Sequence[bytes]) -> Iterator[bytes]:
    """Every service has as many servers as can be asked for, all different."""
    for size, argument in zip(sizes, arguments, strict=True):
        if number == 1154:
            yield bytes(8)
            yield from (_listed(index) for index in range((size - 8) // 104))
        else:
            yield bytes(24)
            start = int.from_bytes(argument[4:8], "big") << 20
            for index in range((size - 24) // 96 - 1):
                address = struct.pack(">I", (start + index) & 0xFFFFFFFF or 1)
                yield address + bytes(36) + b"\1" * 16 + struct.pack("=QQ", index, index) + b"\1" * 24
            yield bytes(96)


def _listed(number: int) -> bytes:
    return struct.pack("=Hxx", 6) + struct.pack(">IH", number, 80) + struct.pack("=34xI56x", _MOST_SERVERS)


def _endless_options(_: str) -> Iterator[bytes]:
    return iter((_TABLE_HEADING.encode(),))


_CASES: dict[str, tuple[list[str], dict[int, Rows], Callable[[str], Iterator[bytes]]]] = {
    "interfaces": (["kata-network", "list-ifaces", "hostile"], {18: _rows(16, _link)}, _none),
    "routes": (["kata-network", "list-routes", "hostile"], {26: _rows(24, _route)}, _none),
    "services": (_ipvs("-L"), {codec.GET_SERVICE: _SERVICES}, _none),
    "servers in the file": (
        _ipvs("-L"), {codec.GET_SERVICE: _rows(20, _service_of_ipv6, 1), codec.GET_DEST: _SERVERS}, _table,
    ),
    "servers of one service": (
        _ipvs("-L --stats"), {codec.GET_SERVICE: _rows(20, _service, 1), codec.GET_DEST: _SERVERS}, _none,
    ),
    "servers of many services as socket options": (
        _ipvs("-L --stats"), {codec.GET_SERVICE: _rows(20, _service, 100)}, _endless_options,
    ),
    "servers of many services as JSON": (
        _ipvs("-L", "--format", "json"), {codec.GET_SERVICE: _MANY_SERVICES, codec.GET_DEST: _THOUSAND_SERVERS}, _none,
    ),
    "connections as JSON": (_ipvs("-L -c", "--format", "json"), {}, _connections),
    "tracked connections": (
        ["kata-ipvs", "cleanup", "--parameters", "-p tcp", "hostile"], {257: _rows(256, _tracked)}, _none,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "rows", "lines"), _CASES.values(), ids=_CASES.keys())
def test_memory_stays_bounded(
    tmp_path: Path, words: list[str], rows: dict[int, Rows], lines: Callable[[str], Iterator[bytes]]
) -> None:
    """A list without end is refused in one line, and the command never has more than 256 MB."""
    directory = tmp_path / "root" / "hostile"
    directory.mkdir(parents=True, mode=0o700)
    pid = os.getpid()
    nic = NicRecord("eth-test", "tap_test", mac("02:42:20:6e:03:01"), 1500, (), 0)
    save_record(str(directory), Record("hostile", pid=pid, start_time=start_time_of(pid) or 0, nics=(nic,)))
    (directory / "lock").touch()
    report = tmp_path / "memory"
    argv = measured([PROGRAM, "--root", str(tmp_path / "root"), *words], report)
    with scripted_agent(directory / "control.sock", Kernel(rows, lines).serve):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    assert done.returncode == 1, done.stderr
    shown = done.stderr.decode()
    assert shown.startswith("kata-runtime: ")
    assert shown.count("\n") == 1
    assert "internal error" not in shown
    assert int(report.read_text()) < _PEAK_KIB, done.stderr
