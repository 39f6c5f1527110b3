"""Starts systemd's journal where /run is private, and returns when it listens."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

_PROGRAM = "/lib/systemd/systemd-journald"
_DIRECTORY = Path("/run/systemd/journal")
_SECONDS = 30.0


def main() -> None:
    """Start it; it ends with the namespaces of its caller. It says when it is ready as to systemd (sd_notify(3))."""
    _DIRECTORY.mkdir(parents=True)
    path = _DIRECTORY.with_name("ready")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(path))
        ready.settimeout(_SECONDS)
        subprocess.Popen(
            [_PROGRAM],
            env={**os.environ, "NOTIFY_SOCKET": str(path)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while b"READY=1" not in ready.recv(4096).split(b"\n"):
            pass


if __name__ == "__main__":
    main()
