"""A guest's agent that does what a script says, behind the Unix socket where a command looks for it."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kata_runtime import unix_socket
from kata_runtime.guest import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Script = Callable[["Agent"], None]


class Agent:
    """One connection of the agent; what a script raises when the command has left is of no interest."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = wire.Decoder()
        self._received: list[tuple[int, int, bytes]] = []

    def raw(self, data: bytes) -> None:
        """Send any bytes."""
        self._connection.sendall(data)

    def send(self, kind: int, request: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self.raw(wire.pack_frame(kind, request, payload))

    def close(self) -> None:
        """End the connection."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def is_asked(self) -> bool:
        """Whether bytes of the command have arrived that were not received."""
        return bool(select.select([self._connection], [], [], 0)[0])

    def await_end(self) -> None:
        """Receive until the command has ended its side of the connection; what it still sends is discarded."""
        while self._connection.recv(1 << 16):
            continue

    def receive(self) -> tuple[int, int, bytes]:
        """The next frame of the command; invalid ones are skipped."""
        while not self._received:
            data = self._connection.recv(1 << 16)
            if not data:
                raise BrokenPipeError
            for raw in self._decoder.feed(data):
                try:
                    self._received.append(wire.unpack_body(raw))
                except wire.FrameError:
                    continue
        return self._received.pop(0)

    def greet(self, version: bytes = wire.VERSION.to_bytes(2, "big")) -> None:
        """Answer the HELLO as the real agent does."""
        kind, request, nonce = self.receive()
        assert kind == wire.HELLO
        self.raw(wire.OPENING)
        self.send(wire.HELLO, request, nonce + version)


@contextmanager
def scripted_agent(path: Path, *scripts: Script) -> Iterator[str]:
    """Serve each connection to ``path`` in a thread of its own, with the scripts in turn, the last one repeated."""
    listening = socket.socket(fileno=unix_socket.listen(str(path)).detach())
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def serve() -> None:
        number = 0
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # shut down
            connections.append(connection)
            script = scripts[min(number, len(scripts) - 1)]
            number += 1
            threads.append(threading.Thread(target=play, args=(script, connection)))
            threads[-1].start()

    def play(script: Script, connection: socket.socket) -> None:
        agent = Agent(connection)
        try:
            script(agent)
            agent.await_end()
            agent.close()  # as QEMU does when the command has ended its side
        except (OSError, wire.FrameError):
            connection.close()  # the command has left

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield os.fspath(path)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        server.join()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by the other end
        for thread in threads:
            thread.join()
        for opened in (listening, *connections):
            opened.close()
