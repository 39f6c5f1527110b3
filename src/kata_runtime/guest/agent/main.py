"""The agent's entry point: find the virtio-serial ports that QEMU made and serve them."""

from __future__ import annotations

import os
import select
import signal

from kata_runtime.guest import wire
from kata_runtime.guest.agent.children import Children
from kata_runtime.guest.agent.containers import Crun
from kata_runtime.guest.agent.control_port import Control
from kata_runtime.guest.agent.exec_ports import ExecPort
from kata_runtime.guest.agent.guest_port import Port
from kata_runtime.guest.agent.loop import Loop
from kata_runtime.guest.agent.netlink_relay import Relay
from kata_runtime.guest.agent.socket_options import SocketOptions
from kata_runtime.guest.agent.template_renewal import Renewal

_MACHINE_ID = "/etc/machine-id"  # machine-id(5)
_PORTS_DIRECTORY = "/sys/class/virtio-ports"
# What sysfs shows as the name of a port whose name the kernel has not received yet.
_NO_NAME = "(null)"


def main() -> None:
    """Serve all ports; never returns. After an uncaught exception init starts the agent again."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop = Loop()
    crun = Crun(Children(loop))
    crun.end_leftovers()
    ports = _ports()
    served: list[Control | ExecPort] = [
        ExecPort(_open(path), loop, crun) for name, path in ports.items() if name.startswith(wire.EXEC_PORT_PREFIX)
    ]
    control = _open(ports[wire.CONTROL_PORT])
    served.append(Control(control, loop, Relay(), SocketOptions(), Renewal(_MACHINE_ID)))
    loop.run()


def _open(path: str) -> Port:
    return Port(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def _ports() -> dict[str, str]:
    """``{port name: device}`` of every port.

    The kernel sets the names a little later than it makes the directories, first that of the control port
    (drivers/char/virtio_console.c: VIRTIO_CONSOLE_PORT_NAME).
    """
    poller = select.poll()
    while True:
        names = {entry: _name_of(entry) for entry in os.listdir(_PORTS_DIRECTORY)}
        if wire.CONTROL_PORT in names.values() and _NO_NAME not in names.values():
            return {name: f"/dev/{entry}" for entry, name in names.items()}
        poller.poll(10)


def _name_of(entry: str) -> str:
    try:
        with open(f"{_PORTS_DIRECTORY}/{entry}/name") as file:
            return file.read().strip()
    except FileNotFoundError:
        return _NO_NAME
