"""Fills the queue of a listening Unix socket (listen(2)) with connections that were given up."""

from __future__ import annotations

import socket


def fill_queue(path: str) -> None:
    """Connect to ``path`` and close, until the kernel has no room for another connection."""
    while True:
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.setblocking(False)
            try:
                abandoned.connect(path)
            except BlockingIOError:
                return
