"""dpdk-testpmd between two guests, and between one and this host: the back end of their vhost-user NICs."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.conftest import Namespace

HOST_DEVICE = "dpdk0"
_SOCKETS = ("first", "second", "host")
_START_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
# Ports 0 and 1 are joined, and 2 and 3. One core polls; the other processor is left to the guests.
_ARGUMENTS = (
    "dpdk-testpmd --no-huge -m 256 --no-pci --no-shconf --no-telemetry --lcores=0@0,1@0 "
    "--vdev=net_vhost0,iface={0}/first --vdev=net_vhost1,iface={0}/second --vdev=net_vhost2,iface={0}/host "
    "--vdev=net_tap0,iface={1} -- "
    "--forward-mode=io --port-topology=paired --nb-cores=1 --total-num-mbufs=16384 --disable-link-check"
)


class Switch:
    """A testpmd whose sockets are in ``directory``; it polls, so it is stopped unless it is ``awake``."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self.directory = directory
        self._argv = [*namespace.prefix, *_ARGUMENTS.format(directory, HOST_DEVICE).split()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        log = self.directory / "log"
        with log.open("wb") as file:
            # It ends when its standard input does.
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=file, stderr=file, umask=0, cwd=self.directory
            )
        end = time.monotonic() + _START_SECONDS
        while not all(_listens(self.directory / name) for name in _SOCKETS):
            try:
                self._process.wait(_PAUSE_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() < end:
                    continue
            raise RuntimeError(log.read_text())

    def kill(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """It runs in the block, and is stopped afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
