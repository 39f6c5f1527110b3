"""Start of the agent: find the ports that QEMU made, serve them for ever."""

from __future__ import annotations

import os
import select
import signal

from kata_runtime.guest import wire
from kata_runtime.guest.agent.commands import ExecPort
from kata_runtime.guest.agent.control import Control
from kata_runtime.guest.agent.loop import Loop
from kata_runtime.guest.agent.port import Port
from kata_runtime.guest.agent.relay import Relay

_PORTS_DIRECTORY = "/sys/class/virtio-ports"


def main() -> None:
    """Serve; ends only by a defect, and init starts the agent anew."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop = Loop()
    names = {name: path for name, path in _ports().items() if name.startswith(wire.EXEC_PORT_PREFIX)}
    served: list[Control | ExecPort] = [ExecPort(_open(path), loop) for path in names.values()]
    served.append(Control(_open(_ports()[wire.CONTROL_PORT]), loop, Relay()))
    loop.run()


def _open(path: str) -> Port:
    return Port(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def _ports() -> dict[str, str]:
    """``{port name: device}``; a port's name comes a little after its directory (drivers/char/virtio_console.c)."""
    poller = select.poll()
    while True:
        found = {}
        for entry in os.listdir(_PORTS_DIRECTORY):
            try:
                with open(f"{_PORTS_DIRECTORY}/{entry}/name") as file:
                    found[file.read().strip()] = f"/dev/{entry}"
            except FileNotFoundError:
                continue
        if wire.CONTROL_PORT in found:
            return found
        poller.poll(10)
