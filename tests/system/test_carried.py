"""Interfaces of a network namespace in the guest: carried along, crossed by packets, kept in step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Namespace, Sandbox, network_namespace

from kata_runtime.network import namespace as network
from kata_runtime.network.reconcile import reconcile
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Carried:
    """A sandbox with a namespace of its own, ``inside``, joined by veths to ``outside``, where its gateways are."""

    def __init__(self, sandbox: Sandbox, inside: Namespace, outside: Namespace) -> None:
        self.sandbox = sandbox
        self.inside = inside
        self.outside = outside
        self.path = f"/run/netns/{inside.name}"

    def veth(self, name: str, number: int, *, mac: str = "") -> None:
        """A veth ``name`` with 10.NUMBER.0.3/24 and fdNUMBER::3/64, its gateway's end ``gwNUMBER`` outside."""
        gateway = f"gw{number}"
        self.inside.run("ip", "link", "add", name, "type", "veth", "peer", "name", gateway, "netns", self.outside.name)
        if mac:
            self.inside.run("ip", "link", "set", name, "address", mac)
        for where, device, host in ((self.inside, name, 3), (self.outside, gateway, 1)):
            where.run("ip", "address", "add", f"10.{number}.0.{host}/24", "dev", device)
            where.run("ip", "address", "add", f"fd{number}::{host}/64", "dev", device, "nodad")
            where.run("ip", "link", "set", device, "up")

    def reconcile(self, *, creating: bool = False) -> list[str]:
        """One call of reconcile, as the shim makes it."""
        with network.Namespace(self.path) as namespace, self.sandbox.session() as session:
            return reconcile(session, namespace, creating=creating)

    def routes(self, where: Namespace | Sandbox) -> list[str]:
        """The main table there, without link-local."""
        run = where.guest if isinstance(where, Sandbox) else where.run
        lines = [*run("ip", "route").stdout.splitlines(), *run("ip", "-6", "route").stdout.splitlines()]
        return [" ".join(line.split()) for line in lines if not line.startswith("fe80")]

    def links(self, where: Namespace | Sandbox) -> list[object]:
        """Name, MAC, MTU, state and addresses there, without lo, link-local addresses and TAPs."""
        run = where.guest if isinstance(where, Sandbox) else where.run
        rows = json.loads(run("ip", "-j", "address").stdout)
        return [
            (
                row["ifname"],
                row["address"],
                row["mtu"],
                "UP" in row["flags"],
                sorted(
                    f"{found['local']}/{found['prefixlen']}" for found in row["addr_info"] if found["scope"] != "link"
                ),
            )
            for row in rows
            if row["ifname"] != "lo" and "tap" not in row["ifname"]
        ]

    def same(self) -> None:
        """The guest has what the namespace has."""
        assert self.links(self.sandbox) == self.links(self.inside)
        assert self.routes(self.sandbox) == self.routes(self.inside)


def _pings(where: Namespace | Sandbox, address: str, *options: str) -> bool:
    run = where.guest if isinstance(where, Sandbox) else where.attempt
    return run("ping", "-n", "-c", "1", "-W", "5", *options, address).returncode == 0


@pytest.fixture
def carried(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Carried]:
    """The shared sandbox with fresh namespaces; whatever was carried is taken out again, and left no trace."""
    with network_namespace(unique("in")) as inside, network_namespace(unique("out")) as outside:
        made = Carried(sandbox, inside, outside)
        yield made
        for row in json.loads(inside.run("ip", "-j", "link").stdout):
            if row["ifname"] != "lo":
                inside.attempt("ip", "link", "delete", row["ifname"])
        assert made.reconcile() == []
        assert (made.links(sandbox), load_record(str(sandbox.directory)).mirrored) == ([], ())


def test_veth_comes_along(carried: Carried) -> None:
    """Name, MAC, MTU, addresses, routes and neighbours are the namespace's; packets cross both ways."""
    carried.veth("eth0", 11, mac="02:42:0a:0b:00:03")
    carried.inside.run("ip", "link", "set", "eth0", "mtu", "1400")
    carried.inside.run("ip", "route", "add", "default", "via", "10.11.0.1", "metric", "100")
    carried.inside.run("ip", "route", "add", "10.99.0.0/16", "via", "10.98.0.1", "dev", "eth0", "onlink")
    carried.inside.run("ip", "-6", "route", "add", "default", "via", "fd11::1")
    carried.inside.run("ip", "neighbour", "add", "10.11.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0")
    assert carried.reconcile(creating=True) == []
    carried.same()
    shown = carried.sandbox.guest("ip", "neighbour", "show", "nud", "permanent").stdout.split()
    assert shown == ["10.11.0.77", "dev", "eth0", "lladdr", "02:00:00:00:00:77", "PERMANENT"]
    assert [_pings(carried.sandbox, "10.11.0.1"), _pings(carried.outside, "10.11.0.3")] == [True, True]
    assert [_pings(carried.sandbox, "fd11::1"), _pings(carried.outside, "fd11::3")] == [True, True]
    assert carried.reconcile() == []
