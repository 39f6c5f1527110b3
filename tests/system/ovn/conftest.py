"""Two hosts of the lab, with a sandbox on each."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.logical_switch import LogicalSwitch
from lab.ovn_lab import Lab, ovn_lab
from tests.system.conftest import Namespace, Runtime, Sandbox, booted, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.host import Host
    from lab.logical_switch import LogicalPort

# ethtool(8) -K tx, sg, tso and gso off, by its ioctl (linux/ethtool.h), since the guest has no ethtool.
_OFFLOADS_OFF = """
import array, fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    for command in (0x17, 0x19, 0x1f, 0x24):
        value = array.array("B", struct.pack("II", command, 0))
        fcntl.ioctl(opened, 0x8946, struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0]))
"""


class Side:
    """A host, and the sandbox that runs on it."""

    def __init__(self, host: Host, sandbox: Sandbox) -> None:
        self.host = host
        self.sandbox = sandbox
        self.namespace = Namespace(host.name)

    @property
    def guest(self) -> list[str]:
        """The beginning of a command line that runs in the guest."""
        return self.sandbox.runtime.argv("exec", self.sandbox.id)

    @contextmanager
    def attached(self, port: LogicalPort, mtu: int, name: str = "eth0", *, offload: bool = False) -> Iterator[None]:
        """Make ``port`` a NIC of the sandbox, with what a virtual NIC leaves to hardware or without."""
        device = f"t{port.mac[3:].replace(':', '')}"
        document = nic(device, name, f"{port.address}/16", mac=port.mac, mtu=mtu)
        with ExitStack() as stack:
            self.namespace.tap(device, mtu=mtu)
            stack.callback(self.namespace.run, "ip", "link", "delete", device)
            self.host.plug(device, port.name, port.mac)
            stack.callback(self.host.unplug, device)
            done = self.sandbox.network("add-iface", document)
            assert (done.returncode, done.stderr) == (0, "")
            stack.callback(self.sandbox.network, "del-iface", document)
            if not offload:
                self.switch_off_offloads(name)
            yield

    def switch_off_offloads(self, name: str) -> None:
        """Let the guest's kernel make checksums and segments itself."""
        done = self.sandbox.guest("python3", "-c", _OFFLOADS_OFF, name)
        assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def sides_of(lab: Lab, runtime: Runtime, unique: Callable[[str], str]) -> Iterator[list[Side]]:
    """A sandbox on each host of the lab, under a root of that host's own."""
    with ExitStack() as stack:
        made = []
        for host in lab.hosts:
            root = Path(tempfile.mkdtemp(prefix=f"{host.name}-"))
            stack.callback(shutil.rmtree, root)
            own = Runtime(root, runtime.config)
            own.namespace = Namespace(host.name)
            made.append(Side(host, stack.enter_context(booted(own, unique("pod")))))
        yield made


@pytest.fixture(scope="package")
def lab(unique: Callable[[str], str]) -> Iterator[Lab]:
    """OVN and two hosts; what is left on their switches at the end fails."""
    with ovn_lab(unique("lab")) as made:
        yield made
        assert [host.ports() for host in made.hosts] == [[], []]


@pytest.fixture(scope="package")
def sides(lab: Lab, runtime: Runtime, unique: Callable[[str], str]) -> Iterator[list[Side]]:
    """A sandbox on each host."""
    with sides_of(lab, runtime, unique) as made:
        yield made


@pytest.fixture
def network(lab: Lab, unique: Callable[[str], str]) -> Iterator[LogicalSwitch]:
    """A logical switch of the test's own."""
    made = LogicalSwitch(lab.central, unique("net"), 7, lab.underlay.guest_mtu)
    yield made
    made.delete()
