"""A network namespace of one's own, and peers at Unix sockets that follow a script."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SECONDS = 10.0


@pytest.fixture
def network() -> Iterator[Callable[..., str]]:
    """This thread is in a new network namespace; runs ip(8) there."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield lambda *words: subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
        finally:
            assert libc.setns(before, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


@contextmanager
def peer(path: Path, script: Callable[[socket.socket], None]) -> Iterator[None]:
    """Someone who listens at ``path`` and follows ``script`` on the first connection; its failure is the test's."""
    failures: list[BaseException] = []
    # A socket's path is limited to 107 bytes, a temporary directory's is not.
    directory = os.open(path.parent, os.O_PATH)
    listening = socket.socket(socket.AF_UNIX)
    listening.settimeout(_SECONDS)
    try:
        listening.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    listening.listen()

    def serve() -> None:
        try:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(_SECONDS)
                script(connection)
        except (AssertionError, OSError, ValueError, KeyError) as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        listening.close()
    assert failures == []
