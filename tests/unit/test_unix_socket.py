"""Connections to Unix sockets whose queue is full, and descriptors that are passed over them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from tests.full_queue import fill_queue

from kata_runtime.unix_socket import connect, listen, receive_descriptors, send_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 20.0


@pytest.fixture
def full(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A listening socket, at its path, whose queue is full of connections that were closed again."""
    path = str(tmp_path / "socket")
    with ExitStack() as ends:
        listening = ends.enter_context(socket.socket(fileno=listen(path).detach()))
        fill_queue(path)
        yield path, listening


def _accept_all(listening: socket.socket, count: int) -> None:
    for _ in range(count):
        listening.accept()[0].close()


def _is_connecting(thread: int) -> bool:
    """Whether the thread waits in connect(2) (proc(5), ``wchan``)."""
    with open(f"/proc/self/task/{thread}/wchan", encoding="ascii") as name:
        return name.read() == "unix_wait_for_peer"


def _once_connecting(thread: int, then: threading.Thread) -> None:
    deadline = time.monotonic() + _SECONDS
    while not _is_connecting(thread) and time.monotonic() < deadline:
        os.sched_yield()
    then.start()


def test_full_queue(full: tuple[str, socket.socket]) -> None:
    """A connection waits for room in the queue of the listening socket, and the data sent over it arrives."""
    path, listening = full
    accepting = threading.Thread(target=_accept_all, args=(listening, 2))
    waiting = threading.Thread(target=_once_connecting, args=(threading.get_native_id(), accepting))
    waiting.start()
    with closing(connect(path, _SECONDS)) as opened:
        waiting.join()
        accepting.join()
        opened.send(b"here")
        served, _ = listening.accept()
        with served:
            assert (served.recv(16), opened.gettimeout()) == (b"here", _SECONDS)


def test_queue_stays_full(full: tuple[str, socket.socket]) -> None:
    """A connection to a queue that stays full ends with its deadline."""
    path, _ = full
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="Connection timed out"):
        connect(path, 0.2)
    assert time.monotonic() - before >= 0.2


def test_signal_while_the_queue_is_full(full: tuple[str, socket.socket]) -> None:
    """A signal whose handler returns does not make a connection out of one that still waits."""
    path, _ = full
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
    sending = threading.Thread(target=signal.pthread_kill, args=(threading.get_ident(), signal.SIGUSR1))
    waiting = threading.Thread(target=_once_connecting, args=(threading.get_native_id(), sending))
    try:
        waiting.start()
        with pytest.raises(TimeoutError):
            connect(path, 0.5)
        waiting.join()
        sending.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def test_descriptors_arrive_with_the_data(kind: int) -> None:
    """Copies of the descriptors arrive in their order, with the data that was sent with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        readable, writable = os.pipe()
        try:
            send_descriptors(ours, b"two", [readable, writable])
            data, received = receive_descriptors(theirs, 16, 2)
            os.write(received[1], b"through")
            assert (data, os.read(received[0], 16)) == (b"two", b"through")
        finally:
            for descriptor in (readable, writable, *received):
                os.close(descriptor)


def test_no_descriptors() -> None:
    """Data without descriptors, and the end of the stream, come with none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"none")
        assert receive_descriptors(theirs, 16, 2) == (b"none", [])
        ours.close()
        assert receive_descriptors(theirs, 16, 2) == (b"", [])


def test_surplus_descriptors_are_closed() -> None:
    """Of more descriptors than are expected those beyond them do not stay open in this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_descriptors(ours, b"three", [0, 1, 2])
        before = len(os.listdir("/proc/self/fd"))
        data, received = receive_descriptors(theirs, 16, 1)
        try:
            assert (data, len(received), len(os.listdir("/proc/self/fd"))) == (b"three", 1, before + 1)
        finally:
            os.close(received[0])
