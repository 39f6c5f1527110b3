"""Two hosts of the lab with Neutron, and a sandbox on each host."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from lab.neutron_lab import Document, Neutron, running_neutron
from lab.ovn_lab import Lab, ovn_lab
from tests.system.ovn.conftest import Side, sides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Completed, Runtime


@pytest.fixture(scope="package")
def lab(unique: Callable[[str], str]) -> Iterator[Lab]:
    """OVN and two hosts; what is left on their switches at the end fails."""
    with ovn_lab(unique("neu")) as made:
        yield made
        assert [host.ports() for host in made.hosts] == [[], []]


@pytest.fixture(scope="package")
def neutron(lab: Lab) -> Iterator[Neutron]:
    """Neutron for the hosts."""
    with running_neutron(lab) as made:
        yield made


@pytest.fixture(scope="package")
def sides(lab: Lab, neutron: Neutron, runtime: Runtime, unique: Callable[[str], str]) -> Iterator[list[Side]]:
    """A sandbox on each host, whose commands find Neutron as every OpenStack client does."""
    variables = (f"OS_CLIENT_CONFIG_FILE={neutron.clouds}", "OS_CLOUD=lab")
    with sides_of(lab, runtime, unique, *variables) as made:
        yield made


class Tenant:
    """A network with a subnet, and ports in it, all of which go at the end."""

    def __init__(self, neutron: Neutron, name: str) -> None:
        self.neutron = neutron
        self.network = neutron.create("network", name=name)
        self.subnet = neutron.create(
            "subnet", network_id=self.network["id"], ip_version=4, cidr="10.20.0.0/24",
            host_routes=[{"destination": "10.50.0.0/16", "nexthop": "10.20.0.9"}],
        )  # fmt: skip
        self._ports: list[str] = []

    def port(self, name: str, **fields: object) -> Document:
        """A new port."""
        made = self.neutron.create("port", network_id=self.network["id"], name=name, **fields)
        self._ports.append(made["id"])
        return made

    def binding(self, port: Document) -> tuple[str, str]:
        """The host that a port is bound to, and its status."""
        seen = self.neutron.show("port", port["id"])
        return seen["binding:host_id"], seen["status"]

    def delete(self) -> None:
        """Delete everything."""
        for port in self._ports:
            self.neutron.delete("port", port)
        self.neutron.delete("network", self.network["id"])


@pytest.fixture
def tenant(neutron: Neutron, unique: Callable[[str], str]) -> Iterator[Tenant]:
    """A network of the test's own."""
    made = Tenant(neutron, unique("net"))
    yield made
    made.delete()


def address_of(port: Document) -> str:
    """The port's first address."""
    return str(port["fixed_ips"][0]["ip_address"])


def add(side: Side, port: str, *options: str) -> Completed:
    """Run add-port for a port of Neutron."""
    return side.sandbox.cli("kata-network", "add-port", side.sandbox.id, port, *options)


@contextmanager
def attached(side: Side, port: Document, *options: str) -> Iterator[Document]:
    """Make the port a NIC of the sandbox; what add-port printed."""
    done = add(side, port["id"], *options)
    assert (done.returncode, done.stderr) == (0, "")
    try:
        yield json.loads(done.stdout)
    finally:
        side.delete(port["id"])
