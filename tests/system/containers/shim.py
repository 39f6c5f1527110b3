"""Relays one request, as a shim does: a program of its own, whose standard streams are the container's.

``shim.py PORT SOCKET KIND``: the payload comes on the socket in one datagram, and then commands: ``signal N``,
``resize ROWS COLUMNS``. It answers with ``started PID`` or ``error TYPE MESSAGE``.
"""

from __future__ import annotations

import socket
import sys

from kata_runtime.errors import KataError
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.sandbox.stream_relay import Relay, Streams

_DATAGRAM_BYTES = 64 * 1024
FAILED = 250


def main() -> int:
    """Return the exit status of the container."""
    path, number, kind = sys.argv[1:]
    control = socket.socket(fileno=int(number))
    payload = control.recv(_DATAGRAM_BYTES)
    relay = Relay(GuestPort(path), Streams(0, 1, 2), owned=True)

    def obey() -> None:
        verb, *numbers = control.recv(_DATAGRAM_BYTES).decode().split()
        values = list(map(int, numbers))
        if verb == "signal":
            relay.signal(*values)
        else:
            relay.resize(*values)

    relay.watch(control.fileno(), obey)
    try:
        return relay.run(int(kind), payload, lambda pid: control.sendall(f"started {pid}".encode()))
    except KataError as error:
        control.sendall(f"error {type(error).__name__} {error}".encode())
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
