"""A sandbox and the network namespace whose interfaces it carries."""

from __future__ import annotations

import json
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Completed, Namespace, Sandbox, network_namespace

from kata_runtime.network import namespace as network
from kata_runtime.network.namespace_follower import Follower
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

    @contextmanager
    def following(self) -> Iterator[Callable[[], list[str]]]:
        """A follower in a loop, as the shim has it: runs until all changes are handled; returns its messages."""
        told: list[str] = []
        with network.Namespace(self.path) as namespace:
            follower = Follower(namespace, self.sandbox.session, told.append)
            poller = select.poll()
            poller.register(follower.fileno(), select.POLLIN)

            def settle() -> list[str]:
                while poller.poll(20_000 if _is_busy(follower) else 0):
                    follower.ready()
                assert not _is_busy(follower), "the guest does not follow"
                return told

            try:
                yield settle
            finally:
                follower.close()

    def reconcile(self, *, creating: bool = False) -> list[str]:
        """One call of reconcile, as the shim makes it."""
        with network.Namespace(self.path) as namespace, self.sandbox.session() as session:
            return reconcile(session, namespace, creating=creating)

    def same(self) -> list[object]:
        """The guest has what the namespace has; the names of its interfaces."""
        ours, theirs = look(self.sandbox.guest), look(self.inside.run)
        assert ours == theirs
        return [row[0] for row in ours[0]]


def _is_busy(follower: Follower) -> bool:
    """Whether a round is running or due."""
    return follower._due or follower._round is not None


# The path: the shell of the guest would take its own ip, which knows less.
_LOOK = "for words in '-j address' route '-6 route' 'neighbour show nud permanent'; do /sbin/ip $words; done"


def look(run: Callable[..., Completed]) -> tuple[list[list[object]], list[str]]:
    """Interfaces (name, MAC, MTU, state, addresses) and routes and neighbours; without lo, link-local and TAPs."""
    addresses, *lines = run("sh", "-c", _LOOK).stdout.splitlines()
    links = [
        [
            row["ifname"],
            row["address"],
            row["mtu"],
            "UP" in row["flags"],
            sorted(f"{found['local']}/{found['prefixlen']}" for found in row["addr_info"] if found["scope"] != "link"),
        ]
        for row in json.loads(addresses)
        if row["ifname"] != "lo" and not row["ifname"].endswith("_kata")
    ]
    return links, [" ".join(line.split()) for line in lines if not line.startswith("fe80")]


def pings(where: Namespace | Sandbox, address: str, *options: str) -> bool:
    run = where.guest if isinstance(where, Sandbox) else where.attempt
    return run("ping", "-n", "-c", "1", "-W", "5", *options, address).returncode == 0


@pytest.fixture
def carried(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Carried]:
    """The shared sandbox with fresh namespaces; what was mirrored is removed again without a trace."""
    with network_namespace(unique("in")) as inside, network_namespace(unique("out")) as outside:
        made = Carried(sandbox, inside, outside)
        yield made
        inside.run("ip", "route", "flush", "type", "blackhole")
        for row in json.loads(inside.run("ip", "-j", "link").stdout):
            if row["ifname"] != "lo":
                inside.attempt("ip", "link", "delete", row["ifname"])
        assert made.reconcile() == []
        assert (look(sandbox.guest), load_record(str(sandbox.directory)).mirrored) == (([], []), ())
