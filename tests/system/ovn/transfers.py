"""Data over TCP between two places, each of which is the beginning of a command line (a guest, a namespace)."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 120
# Until somebody answers, and until it is certain that nobody does.
ANSWER_SECONDS, SILENCE_SECONDS = 30, 2
# Both print size and checksum of what they sent or received.
_RECEIVER = """
import socket, sys, zlib
with socket.create_server(("", int(sys.argv[1]))) as listening:
    print("ready", flush=True)
    with listening.accept()[0] as peer:
        peer.settimeout(float(sys.argv[2]))
        room, size, total = memoryview(bytearray(1 << 18)), 0, 0
        while count := peer.recv_into(room):
            size, total = size + count, zlib.crc32(room[:count], total)
        peer.sendall(b"k")
    print(size, total)
"""
_SENDER = """
import os, socket, sys, zlib
block, size, total = bytearray(os.urandom(1 << 20)), 0, 0
with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[4])) as peer:
    for number in range(int(sys.argv[3])):
        block[:8] = number.to_bytes(8, "big")
        peer.sendall(block)
        size, total = size + len(block), zlib.crc32(block, total)
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b"k"
print(size, total)
"""
# Answers each connection with its name until standard input ends.
_SERVER = """
import selectors, socket, sys
listening = socket.create_server(("", int(sys.argv[1])))
selector = selectors.DefaultSelector()
selector.register(listening, selectors.EVENT_READ)
selector.register(sys.stdin, selectors.EVENT_READ)
print("ready", flush=True)
while all(key.fileobj is listening for key, _ in selector.select()):
    connection, _ = listening.accept()
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""
# Asks until it is answered or the time is over, with a new connection each time.
_CLIENT = """
import socket, sys, time
end = time.monotonic() + float(sys.argv[3])
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as opened:
            print(opened.recv(1000).decode())
            break
    except OSError as error:
        if time.monotonic() > end:
            sys.exit(f"no answer: {error}")
"""


def transfer(sender: Sequence[str], receiver: Sequence[str], address: str, mebibytes: int, port: int = 5001) -> bool:
    """Whether this much data arrives intact."""
    with subprocess.Popen(
        [*receiver, "python3", "-c", _RECEIVER, str(port), str(SECONDS)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        argv = [*sender, "python3", "-c", _SENDER, address, str(port), str(mebibytes), str(SECONDS)]
        sent = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=2 * SECONDS)
        assert sent.returncode == 0, sent.stderr
        received = process.stdout.readline()
    assert int(sent.stdout.split()[0]) == mebibytes << 20
    return received == sent.stdout


@contextmanager
def serving(place: Sequence[str], name: str, port: int = 8080) -> Iterator[None]:
    """Answer connections to ``port`` with ``name``."""
    argv = [*place, "python3", "-c", _SERVER, str(port), name]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.stdin.close()
            process.wait(SECONDS)


def ask(place: Sequence[str], address: str, port: int = 8080, *, seconds: float = ANSWER_SECONDS) -> str:
    """Who answers; nobody within these seconds: an empty string."""
    argv = [*place, "python3", "-c", _CLIENT, address, str(port), str(seconds)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS).stdout.strip()
