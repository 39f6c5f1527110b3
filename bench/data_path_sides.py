"""Two guests of the program, or two that were started by hand, and ways to give them the same NICs."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tests.system.conftest import Namespace, Sandbox, booted, network_namespace, nic

from bench import traffic
from bench.harness import run
from bench.raw_machine import raw_machine
from kata_runtime.network import namespace as network
from kata_runtime.network.reconcile import reconcile
from kata_runtime.vmm.tap_device import close_all, open_tap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Runtime

    from bench.raw_machine import Arguments, RawMachine
    from kata_runtime.vmm.monitor import Monitor

PORT = 5201
_TRAFFIC = Path(traffic.__file__).read_text()
_FIND_SECONDS = 60
# A NIC appears in the guest some time after device_add.
_SET_UP = f"""
import os, select, sys, time
mac, name, address, queues = sys.argv[1:]
end = time.monotonic() + {_FIND_SECONDS}
links = "/sys/class/net"
while not (found := [link for link in os.listdir(links) if open(f"{{links}}/{{link}}/address").read().strip() == mac]):
    assert time.monotonic() < end
    select.select([], [], [], 0.05)
words = [f"link set {{found[0]}} name {{name}}", f"link set {{name}} up", f"address add {{address}} dev {{name}}"]
status = [os.system(f"/sbin/ip {{word}}") for word in words]
if int(queues) > 1:
    # It fails where there is nothing to change.
    os.system(f"ethtool -L {{name}} combined {{queues}} 2>/dev/null")
sys.exit(any(status))
"""


class Nic(NamedTuple):
    """A NIC of guest 0 or 1, as it is in the guest; the address with its prefix length."""

    guest: int
    name: str
    address: str
    mac: str
    queues: int = 0


class Side(Protocol):
    """Two guests, each with a traffic server, and the namespace that they are joined in."""

    name: str
    namespace: Namespace

    def run(self, guest: int, *argv: str) -> str:
        """Standard output of a program in a guest that must succeed."""

    def plug_tap(self, wanted: Nic, tap: str) -> None:
        """A NIC on a TAP of the namespace."""

    def plug_vhost_user(self, wanted: Nic, socket: Path) -> None:
        """A NIC whose packets a back end moves."""

    def plug_redirected(self, wanted: Nic, inside: Namespace) -> None:
        """A NIC for the interface of that name in ``inside``, which has its addresses."""


def traffic_argv(python: str, *words: str) -> list[str]:
    """The command line of the traffic program."""
    return [python, "-I", "-S", "-c", _TRAFFIC, *words]


class Ours:
    """Sandboxes, with the commands that a user would type."""

    name = "ours"

    def __init__(self, runtime: Runtime, sandboxes: list[Sandbox]) -> None:
        assert runtime.namespace is not None
        self.namespace = runtime.namespace
        self._sandboxes = sandboxes
        _serve(self)

    def run(self, guest: int, *argv: str) -> str:
        """See ``Side``."""
        done = self._sandboxes[guest].guest(*argv)
        if done.returncode:
            raise RuntimeError(f"{argv[:1]} in the guest: {done.stderr}")
        return done.stdout

    def plug_tap(self, wanted: Nic, tap: str) -> None:
        """See ``Side``."""
        self._add(wanted, tap)

    def plug_vhost_user(self, wanted: Nic, socket: Path) -> None:
        """See ``Side``."""
        # The label of a device that serves one container.
        self._add(wanted, f"{wanted.name}.{wanted.guest}", vhostUserSocket=str(socket))

    def _add(self, wanted: Nic, device: str, **more: object) -> None:
        if wanted.queues:
            more["queues"] = wanted.queues
        sandbox = self._sandboxes[wanted.guest]
        document = {**nic(device, wanted.name, wanted.address, mac=wanted.mac), **more}
        run(sandbox.runtime.argv("kata-network", "add-iface", sandbox.id, "-"), json.dumps(document).encode())

    def plug_redirected(self, wanted: Nic, inside: Namespace) -> None:
        """See ``Side``."""
        with (
            network.Namespace(f"/run/netns/{inside.name}") as opened,
            self._sandboxes[wanted.guest].session() as session,
        ):
            if told := reconcile(session, opened, creating=False):
                raise RuntimeError("\n".join(told))


class Raw:
    """Machines that were started by hand, with NICs that are plugged and set up by hand."""

    name = "by hand"

    def __init__(self, namespace: Namespace, machines: list[RawMachine], *, msix: bool) -> None:
        self.namespace = namespace
        self._machines = machines
        self._msix = msix
        self._plugged = [0 for _ in machines]
        _serve(self)

    def run(self, guest: int, *argv: str) -> str:
        """See ``Side``."""
        return self._machines[guest].run(*argv)

    def plug_tap(self, wanted: Nic, tap: str) -> None:
        """See ``Side``."""
        self._plug_tap(wanted, tap, self.namespace)

    def _plug_tap(self, wanted: Nic, tap: str, where: Namespace) -> None:
        with network.Namespace(f"/run/netns/{where.name}") as opened:
            descriptors = opened.run(lambda: open_tap(tap, wanted.queues))
        try:
            with self._machines[wanted.guest].monitor() as monitor:
                names = [f"{wanted.name}.{number}" for number in range(len(descriptors))]
                for name, descriptor in zip(names, descriptors, strict=True):
                    monitor.send_fd(descriptor, name)
                key = "fds" if len(names) > 1 else "fd"
                monitor.execute("netdev_add", {"type": "tap", "id": wanted.name, key: ":".join(names)})
                self._add_device(monitor, wanted)
        finally:
            close_all(descriptors)
        self._set_up(wanted)

    def plug_vhost_user(self, wanted: Nic, socket: Path) -> None:
        """See ``Side``."""
        backend = {"addr": {"type": "unix", "data": {"path": str(socket)}}, "server": False}
        with self._machines[wanted.guest].monitor() as monitor:
            monitor.execute("chardev-add", {"id": wanted.name, "backend": {"type": "socket", "data": backend}})
            monitor.execute("netdev_add", {"type": "vhost-user", "id": wanted.name, "chardev": wanted.name})
            # QEMU 7.2 dies when a guest starts one with MSI-X without KVM.
            self._add_device(monitor, wanted, **({} if self._msix else {"vectors": 0}))
        self._set_up(wanted)

    def plug_redirected(self, wanted: Nic, inside: Namespace) -> None:
        """See ``Side``."""
        tap = f"{wanted.name}tap"
        inside.tap(tap)
        for device, other in ((wanted.name, tap), (tap, wanted.name)):
            inside.run("tc", "qdisc", "add", "dev", device, "ingress")
            rule = f"filter add dev {device} parent ffff: protocol all u32 match u8 0 0"
            inside.run("tc", *rule.split(), *f"action mirred egress redirect dev {other}".split())
        self._plug_tap(wanted, tap, inside)

    def _add_device(self, monitor: Monitor, wanted: Nic, **more: object) -> None:
        device: dict[str, object] = {"driver": "virtio-net-pci", "id": wanted.name, "netdev": wanted.name, **more}
        if wanted.queues > 1:
            device |= {"mq": True, "vectors": 2 * wanted.queues + 2}
        bus = f"rp{self._plugged[wanted.guest]}"
        self._plugged[wanted.guest] += 1
        monitor.execute("device_add", {**device, "bus": bus, "mac": wanted.mac, "disable-legacy": "on", "romfile": ""})

    def _set_up(self, wanted: Nic) -> None:
        words = [wanted.mac, wanted.name, wanted.address, str(wanted.queues)]
        self.run(wanted.guest, "python3", "-c", _SET_UP, *words)


def _serve(side: Side) -> None:
    for guest in (0, 1):
        side.run(guest, *traffic_argv("python3", "serve", str(PORT)))


def from_host(side: Side, *words: str) -> float:
    """What a traffic client on this host prints."""
    return float(run([*side.namespace.prefix, *traffic_argv(sys.executable, *words)]))


def from_first(side: Side, *words: str) -> float:
    """What a traffic client in the first guest prints."""
    return float(side.run(0, *traffic_argv("python3", *words)))


@contextmanager
def sides(runtime: Runtime, arguments: Arguments, template: Path, *, msix: bool) -> Iterator[list[Side]]:
    """Both sides, each with two running guests."""
    with ExitStack() as stack:
        sandboxes = [stack.enter_context(booted(runtime, f"guest{number}")) for number in (0, 1)]
        machines = [stack.enter_context(raw_machine(arguments, template)) for _ in (0, 1)]
        assert runtime.namespace is not None
        beside = stack.enter_context(network_namespace(f"{runtime.namespace.name}-raw"))
        yield [Ours(runtime, sandboxes), Raw(beside, machines, msix=msix)]
