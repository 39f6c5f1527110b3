"""A network namespace of one's own for a test of routes, and a session over this host's kernel in it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime.netlink.local import LocalTransport
from kata_runtime.sandbox.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h


class FakeSession:
    """What the routes module needs of a sandbox, with this host's kernel in the guest's place."""

    def __init__(self, directory: Path, transport: LocalTransport) -> None:
        self.dry_run = False
        self.directory = directory
        self.record = Record("fake")
        self.saved: list[object] = []
        self.transport: Any = transport

    def channel(self) -> Any:
        """The transport to the kernel."""
        return self.transport

    def save(self, record: Any) -> None:
        """Note what would be on disk."""
        self.record = record
        self.saved.append(record.pending)

    def ip(self, *words: str) -> str:
        """What iproute2 says in the namespace: the oracle."""
        return _ip(*words)

    def state(self) -> str:
        """The whole routing state as iproute2 shows it."""
        six = _ip("-6", "-details", "route", "show", "table", "all").splitlines(keepends=True)
        # The kernel adds these when it notices a carrier, on a busy machine after the test began.
        six = [line for line in six if not line.startswith(("multicast ", "local ", "anycast "))]
        # Without -4 it would show them, too.
        return _ip("-4", "-details", "route", "show", "table", "all") + "".join(six)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def _private_network() -> Iterator[None]:
    """This thread in a new network namespace: lo up, eth0 and eth1 up with addresses, eth2 down."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            script = ["link set lo up"]
            for number in range(3):
                script += [
                    f"link add eth{number} type veth peer name peer{number}",
                    f"link set peer{number} addrgenmode none up",
                    f"link set eth{number} addrgenmode none",
                ]
            for number in range(2):
                script += [
                    f"address add 172.{16 + number}.0.3/16 dev eth{number}",
                    f"address add fd0{number}::3/64 dev eth{number} nodad",
                    f"link set eth{number} up",
                ]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(script), check=True, text=True)
            yield
        finally:
            assert libc.setns(before, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


@pytest.fixture(scope="session")
def make_session(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[Any]]:
    """Makes sessions whose guest is a fresh private namespace."""

    @contextmanager
    def make() -> Iterator[FakeSession]:
        with _private_network(), LocalTransport() as transport:
            yield FakeSession(tmp_path_factory.mktemp("sandbox"), transport)

    return make


@pytest.fixture
def session(make_session: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """One such session."""
    with make_session() as made:
        yield made
