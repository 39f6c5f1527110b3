"""The relay against an agent that this test plays."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kata_runtime import unix_socket
from kata_runtime.errors import KataError, LimitError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.sandbox.stream_relay import RefusedError, Relay, Streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STARTED = (wire.STARTED, wire.pack_count(7))


def _exit(status: int) -> tuple[int, bytes]:
    return wire.EXIT, wire.pack_count(status)


@contextmanager
def _agent(path: Path, frames: list[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """An agent that greets, answers the first request with ``frames``, and keeps what it gets from then on."""
    got: list[tuple[int, bytes]] = []
    listening = socket.socket(fileno=unix_socket.listen(str(path)).detach())

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            decoder = wire.Decoder()
            while data := connection.recv(65536):
                for raw in decoder.feed(data):
                    kind, request, payload = wire.unpack_body(raw)
                    if kind == wire.HELLO:
                        answer = wire.pack_frame(kind, 0, payload + wire.VERSION.to_bytes(2, "big"))
                        connection.sendall(wire.OPENING + answer)
                    elif not got:
                        connection.sendall(b"".join(wire.pack_frame(kind, request, body) for kind, body in frames))
                    if kind != wire.HELLO:
                        got.append((kind, payload))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield got
    finally:
        thread.join(10)
        assert not thread.is_alive()


class _Outcome:
    """What a relay gave: its status or its error, and what it wrote."""

    def __init__(self, path: Path, frames: list[tuple[int, bytes]]) -> None:
        stdin, self.stdin = os.pipe()
        stdout, theirs_out = os.pipe()
        stderr, theirs_err = os.pipe()
        os.close(self.stdin)
        self.pids: list[int] = []
        self.status: int | KataError
        with _agent(path, frames) as self.got:
            port = GuestPort(str(path))
            try:
                relay = Relay(port, Streams(stdin, theirs_out, theirs_err), owned=False)
                self.status = relay.run(wire.EXEC, b"request", self.pids.append)
            except KataError as error:
                self.status = error
            finally:
                port.close()
        for fd in (stdin, theirs_out, theirs_err):
            os.close(fd)
        self.stdout, self.stderr = os.read(stdout, 65536), os.read(stderr, 65536)
        os.close(stdout)
        os.close(stderr)


def test_a_command(tmp_path: Path) -> None:
    """Outputs go where they belong, also those that come with the exit; a signal's status is 128 and its number."""
    frames = [_STARTED, (wire.STDOUT, b"out"), (wire.STDERR, b"err"), (wire.STDOUT, b""), _exit(-15)]
    done = _Outcome(tmp_path / "port", frames)
    assert (done.status, done.stdout, done.stderr, done.pids) == (143, b"out", b"err", [7])
    assert done.got[0] == (wire.EXEC, b"request")


@pytest.mark.parametrize(
    "frames",
    [
        [(wire.STDOUT, b"before")],
        [_exit(0)],
        [_STARTED, _STARTED],
        [_STARTED, (wire.DONE, wire.pack_done(1))],
        [_STARTED, _exit(256)],
        [_STARTED, _exit(-65)],
        [_STARTED, _exit(0), (wire.STDOUT, b"after")],
        [_STARTED, (wire.EXIT, b"1")],
        [_STARTED, (wire.NOTIFY, b"")],
        [(wire.DONE, b"1")],
        [(wire.DONE, wire.pack_done(0xFFFFFFFF))],
    ],
)
def test_agent_that_breaks_the_rules(tmp_path: Path, frames: list[tuple[int, bytes]]) -> None:
    """Frames out of turn, of no use here, cut short or with impossible values end the relay."""
    assert isinstance(_Outcome(tmp_path / "port", frames).status, ProtocolError)


@pytest.mark.parametrize(
    ("payload", "number", "text"),
    [
        (wire.pack_done(2), 2, "No such file or directory"),
        (wire.pack_done(2, "no\x1b[2J such\nthing"), 2, "no [2J such thing"),
        (wire.pack_done(1, "x" * 10_000), 1, "x" * 4096),
    ],
)
def test_refusal(tmp_path: Path, payload: bytes, number: int, text: str) -> None:
    """What did not start is reported with the guest's reason: bounded, and without what could steer a terminal."""
    error = _Outcome(tmp_path / "port", [(wire.DONE, payload)]).status
    assert isinstance(error, RefusedError)
    assert (error.errno, str(error)) == (number, text)


def test_both_outputs_are_one_pipe(tmp_path: Path) -> None:
    """When one output takes the last room of a pipe that both write to, the relay serves its other descriptors."""
    frames = [_STARTED, (wire.STDOUT, b"o" * 4096), (wire.STDERR, b"e" * 4096), _exit(0)]
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    nothing, other = os.open(os.devnull, os.O_RDONLY), os.dup(writable)
    got: list[bytes] = []
    with _agent(tmp_path / "port", frames):
        port = GuestPort(str(tmp_path / "port"))
        relay = Relay(port, Streams(nothing, writable, other), owned=False)
        relay.watch(readable, lambda: got.append(os.read(readable, 4096)))
        running = threading.Thread(target=relay.run, args=(wire.EXEC, b""))
        running.start()
        running.join(10)
        blocked = running.is_alive()
        while running.is_alive():
            os.read(readable, 4096)
            running.join(1)
        port.close()
    for fd in (writable, other, nothing):
        os.close(fd)
    got.append(os.read(readable, 4096))
    os.close(readable)
    assert (blocked, b"".join(got)) == (False, b"o" * 4096 + b"e" * 4096)


def test_request_that_is_too_large(tmp_path: Path) -> None:
    """A request that the agent would discard is refused at once, and nothing of it is sent."""
    with _agent(tmp_path / "port", []) as got:
        port = GuestPort(str(tmp_path / "port"))
        with pytest.raises(LimitError) as raised:
            port.send(wire.CONTAINER_EXEC, 1, b"x" * 1_540_000)
        port.close()
    hint = "511 KiB are possible: shorten the command's arguments and environment"
    assert (str(raised.value), got) == (f"a request of 1503 KiB to the guest; {hint}", [])


def test_owned_streams_end_once(tmp_path: Path) -> None:
    """An output that ended is closed, and no other descriptor when the agent says so again."""
    with _agent(tmp_path / "port", [_STARTED, (wire.STDOUT, b"x"), *[(wire.STDOUT, b"")] * 3, _exit(0)]):
        readable, writable = os.pipe()
        nothing, errors = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
        port = GuestPort(str(tmp_path / "port"))
        assert Relay(port, Streams(nothing, writable, errors), owned=True).run(wire.EXEC, b"") == 0
        port.close()
    assert [os.read(readable, 9), os.read(readable, 9)] == [b"x", b""]
    for fd in (readable, nothing, errors):
        os.close(fd)
