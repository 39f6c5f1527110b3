"""Bounded traffic of TCP between two machines: a server for the guest, and clients that time themselves.

``serve PORT`` returns once it listens and goes on in the background; ``send ADDRESS PORT STREAMS BYTES`` prints the
seconds of one transfer, ``ping ADDRESS PORT COUNT`` the median of as many answered messages. It is sent to the guest as
text, so it imports the standard library only.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time

_SECONDS = 90.0
_CHUNK = 256 * 1024
_MESSAGE = 64  # bytes
_WARM_UP = 20
_SIZE = struct.Struct("!Q")
# The size of a transfer that is none: messages, to be answered until the other side ends.
_MESSAGES = 0


def main() -> None:
    """Do what the command line says."""
    what, *words = sys.argv[1:]
    if what == "serve":
        _serve(int(words[0]))
    elif what == "send":
        print(_send(words[0], int(words[1]), int(words[2]), int(words[3])))
    else:
        print(_ping(words[0], int(words[1]), int(words[2])))


def _serve(port: int) -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("", port))
        listening.listen(16)
        if os.fork():
            return
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connected, _ = listening.accept()
            with connected:
                if not os.fork():
                    _answer(connected)
                    os._exit(0)


def _answer(connected: socket.socket) -> None:
    connected.settimeout(_SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    (left,) = _SIZE.unpack(_exactly(connected, _SIZE.size))
    if left == _MESSAGES:
        while message := connected.recv(_MESSAGE):
            connected.sendall(message)
        return
    room = bytearray(_CHUNK)
    while left:
        left -= connected.recv_into(room, min(left, _CHUNK)) or left
    connected.sendall(b"k")


def _connected(address: str, port: int) -> socket.socket:
    connected = socket.create_connection((address, port), _SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _send(address: str, port: int, streams: int, size: int) -> float:
    connections = [_connected(address, port) for _ in range(streams)]
    start = time.perf_counter()
    children = []
    for connected in connections:
        child = os.fork()
        if not child:
            _transfer(connected, size // streams)
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise RuntimeError("a transfer failed")
    return time.perf_counter() - start


def _transfer(connected: socket.socket, size: int) -> None:
    data = memoryview(bytes(_CHUNK))
    connected.sendall(_SIZE.pack(size))
    while size:
        size -= connected.send(data[: min(size, _CHUNK)])
    if connected.recv(1) != b"k":
        os._exit(1)


def _ping(address: str, port: int, count: int) -> float:
    with _connected(address, port) as connected:
        connected.sendall(_SIZE.pack(_MESSAGES))
        taken = []
        for _ in range(_WARM_UP + count):
            start = time.perf_counter()
            connected.sendall(bytes(_MESSAGE))
            _exactly(connected, _MESSAGE)
            taken.append(time.perf_counter() - start)
    return sorted(taken[_WARM_UP:])[count // 2]


def _exactly(connected: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connected.recv(count - len(data))
        if not part:
            raise RuntimeError("the other side ended")
        data += part
    return data


if __name__ == "__main__":
    main()
