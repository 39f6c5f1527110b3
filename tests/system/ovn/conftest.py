"""Two hosts of the lab, with a sandbox on each."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.host import INTEGRATION_BRIDGE
from lab.logical_switch import LogicalSwitch
from lab.ovn_lab import Lab, ovn_lab
from tests.system.conftest import Completed, Namespace, Runtime, Sandbox, booted, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.host import Host
    from lab.logical_switch import LogicalPort


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

    def add(self, port: LogicalPort, mtu: int, name: str = "eth0", **more: object) -> Completed:
        """Run add-port for ``port``, with the address that it has in OVN or with ``more`` of add-iface's fields."""
        words, document = self.addition(port, mtu, name, **more)
        return self.sandbox.cli(*words, stdin=document)

    def addition(self, port: LogicalPort, mtu: int, name: str = "eth0", **more: object) -> tuple[list[str], str]:
        """The command line and the standard input of ``add``."""
        document = nic("", name, *([] if "dhcp" in more else [f"{port.address}/16"]), mac=port.mac, mtu=mtu, **more)
        del document["device"]
        options = ["--ovs", INTEGRATION_BRIDGE, "--iface-id", port.name]
        return ["kata-network", "add-port", self.sandbox.id, "-", *options], json.dumps(document)

    def traces(self) -> tuple[object, ...]:
        """What a port can have left: in Open vSwitch, on the host, in QEMU and in the record."""
        links = sorted(link["ifname"] for link in json.loads(self.namespace.run("ip", "-j", "link").stdout))
        record = json.loads((self.sandbox.directory / "record.json").read_text())
        return self.host.ports(), links, self.sandbox.monitor_objects(), record["nics"], record["pending"]

    def delete(self, port: str) -> None:
        """Run del-port, which must succeed."""
        done = self.sandbox.cli("kata-network", "del-port", self.sandbox.id, port)
        assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")

    @contextmanager
    def attached(self, port: LogicalPort, mtu: int, name: str = "eth0", **more: object) -> Iterator[None]:
        """Make ``port`` a NIC of the sandbox, by add-port and del-port."""
        done = self.add(port, mtu, name, **more)
        assert (done.returncode, done.stderr) == (0, "")
        try:
            yield
        finally:
            self.delete(port.name)

    @contextmanager
    def plugged(self, port: LogicalPort, mtu: int, name: str = "eth0", *, offload: bool = False) -> Iterator[None]:
        """The same by hand: a TAP on the switch, and add-iface."""
        device = f"t{port.mac[3:].replace(':', '')}"
        document = nic(device, name, f"{port.address}/16", mac=port.mac, mtu=mtu, offload=offload)
        with ExitStack() as stack:
            self.namespace.tap(device, mtu=mtu)
            stack.callback(self.namespace.run, "ip", "link", "delete", device)
            self.host.plug(device, port.name, port.mac)
            stack.callback(self.host.unplug, device)
            done = self.sandbox.network("add-iface", document)
            assert (done.returncode, done.stderr) == (0, "")
            stack.callback(self.sandbox.network, "del-iface", document)
            yield


@contextmanager
def sides_of(lab: Lab, runtime: Runtime, unique: Callable[[str], str], *variables: str) -> Iterator[list[Side]]:
    """A sandbox on each host of the lab, under a root of that host's own; ``variables`` are for its commands."""
    with ExitStack() as stack:
        made = []
        for host in lab.hosts:
            root = Path(tempfile.mkdtemp(prefix=f"{host.name}-"))
            stack.callback(shutil.rmtree, root)
            config = root / ".configuration.toml"
            config.write_text(f'{runtime.config.read_text()}[network]\novsdb = "{host.ovsdb}"\n')
            own = Runtime(root, config)
            own.namespace = Namespace(host.name)
            own.namespace.prefix += ["env", *variables]
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
