"""Interfaces of a network namespace in the guest: carried along, crossed by packets, kept in step."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tests.system.carried.conftest import look, pings
from tests.system.conftest import network_namespace, nic

from kata_runtime.network import namespace as network
from kata_runtime.vmm.tap_device import create_tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.carried.conftest import Carried
    from tests.system.conftest import Namespace


def test_veth_comes_along(carried: Carried) -> None:
    """Name, MAC, MTU, addresses, routes and neighbours are the namespace's; packets cross both ways."""
    carried.veth("eth0", 11, mac="02:42:0a:0b:00:03")
    carried.inside.run("ip", "link", "set", "eth0", "mtu", "1400")
    carried.inside.run("ip", "route", "add", "default", "via", "10.11.0.1", "metric", "100")
    carried.inside.run("ip", "route", "add", "10.99.0.0/16", "via", "10.98.0.1", "dev", "eth0", "onlink")
    carried.inside.run("ip", "-6", "route", "add", "default", "via", "fd11::1")
    carried.inside.run("ip", "neighbour", "add", "10.11.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0")
    assert carried.reconcile(creating=True) == []
    assert carried.same() == ["eth0"]
    assert [pings(carried.sandbox, "10.11.0.1"), pings(carried.outside, "10.11.0.3")] == [True, True]
    assert [pings(carried.sandbox, "fd11::1"), pings(carried.outside, "fd11::3")] == [True, True]
    assert carried.reconcile() == []


def test_namespace_is_followed(carried: Carried) -> None:
    """Addresses, routes, MTU, state, neighbours and interfaces that come, change and go there do so in the guest."""
    inside = carried.inside
    carried.veth("eth0", 12)
    changes = [
        "address add 10.12.0.4/24 dev eth0",
        "address add fd12:1::3/64 dev eth0 nodad",
        "route add 10.50.0.0/16 via 10.12.0.1 metric 7",
        "route add fd50::/32 via fd12::1",
        "route add default nexthop via 10.12.0.1 dev eth0 weight 2 nexthop via 10.12.0.9 dev eth0",
        "route add blackhole 10.66.0.0/16",
        "link set eth0 mtu 1300",
        "route replace 10.50.0.0/16 via 10.12.0.9 metric 7",
        "route delete 10.50.0.0/16 metric 7",
        "address delete 10.12.0.4/24 dev eth0",
        "link set eth0 down",
        "link set eth0 up",
        "link set eth0 address 02:42:0a:0c:00:09",
        # Takes the secondary addresses along, and the routes through them.
        "address delete 10.12.0.3/24 dev eth0",
        "address add 10.12.0.5/25 dev eth0",
    ]
    with carried.following() as settle:
        settle()
        assert carried.same() == ["eth0"]
        for change in changes:
            inside.run("ip", *change.split())
            assert settle() == [], change
            assert carried.same() == ["eth0"], change
        carried.veth("net1", 13)
        assert settle() == []
        assert carried.same() == ["eth0", "net1"]
        assert [pings(carried.sandbox, "10.13.0.1"), pings(carried.outside, "fd13::3")] == [True, True]
        assert [pings(carried.sandbox, "10.12.0.1"), pings(carried.outside, "10.12.0.5")] == [True, True]
        inside.run("ip", "link", "delete", "eth0")
        assert settle() == []
        assert carried.same() == ["net1"]


# Serves one connection: what it gets comes back as its SHA-256, and then as much again.
_SERVER = """
import hashlib, socket, sys
with socket.create_server(("", 5001)) as listening:
    print("ready", flush=True)
    with listening.accept()[0] as peer:
        taken = hashlib.sha256()
        while data := peer.recv(65536):
            taken.update(data)
        peer.sendall(taken.digest())
        peer.sendall(bytes(range(256)) * (int(sys.argv[1]) << 12))
"""
_CLIENT = """
import hashlib, socket, sys
payload = bytes(range(256)) * (int(sys.argv[2]) << 12)
with socket.create_connection((sys.argv[1], 5001), 20) as peer:
    peer.sendall(payload)
    peer.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: peer.recv(65536), b""))
print(answer[:32] == hashlib.sha256(payload).digest(), answer[32:] == payload)
"""


def test_transfer_from_afar(carried: Carried, unique: Callable[[str], str]) -> None:
    """A host that reaches the container over a route through its gateway sends and gets megabytes undamaged."""
    carried.veth("eth0", 14)
    carried.inside.run("ip", "route", "add", "default", "via", "10.14.0.1")
    assert carried.reconcile(creating=True) == []
    outside = carried.outside
    outside.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    with network_namespace(unique("far")) as far:
        far.run("ip", "link", "add", "far", "type", "veth", "peer", "name", "near", "netns", outside.name)
        for where, device, address in ((far, "far", "192.0.2.9/24"), (outside, "near", "192.0.2.1/24")):
            where.run("ip", "address", "add", address, "dev", device)
            where.run("ip", "link", "set", device, "up")
        far.run("ip", "route", "add", "default", "via", "192.0.2.1")
        argv = carried.sandbox.runtime.argv("exec", carried.sandbox.id, "python3", "-c", _SERVER, "8")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            assert far.run(sys.executable, "-c", _CLIENT, "10.14.0.3", "8").stdout == "True True\n"
        assert server.returncode == 0


def test_hot_added_tap_beside(carried: Carried, namespace: Namespace) -> None:
    """add-iface and del-iface know nothing of what is carried but that its names and MACs are taken."""
    sandbox = carried.sandbox
    carried.veth("eth0", 15, mac="02:42:0a:0f:00:03")
    namespace.tap("eth0", "10.16.0.1/24")
    with carried.following() as settle:
        settle()
        refused = [
            sandbox.network("add-iface", nic("eth0", "eth0", mac="02:00:00:00:00:01")).stderr,
            sandbox.network("add-iface", nic("eth0", "net1", mac="02:42:0a:0f:00:03")).stderr,
            sandbox.network("del-iface", {"name": "eth0"}).stderr,
        ]
        assert refused == [
            "kata-runtime: the container has a NIC 'eth0' already; choose another name\n",
            "kata-runtime: hwAddr 02:42:0a:0f:00:03 is that of NIC 'eth0' already\n",
            (
                f"kata-runtime: container {sandbox.id} has no NIC 'eth0' that was added with add-iface; "
                "list-ifaces shows those that can be deleted\n"
            ),
        ]
        assert sandbox.network("list-ifaces").stdout == "null\n"
        # A TAP of the same name as the veth, in another namespace; and one of the namespace that is followed.
        added = [sandbox.network("add-iface", nic("eth0", "net1", "10.16.0.3/24", mac="02:00:00:00:00:01")).stderr]
        sandbox.runtime.namespace = carried.inside
        carried.inside.tap("late", "10.17.0.1/24")
        assert settle() == []
        added.append(sandbox.network("add-iface", nic("late", "net2", "10.17.0.3/24", mac="02:00:00:00:00:02")).stderr)
        assert added == ["", ""]
        assert settle() == []
        assert [row["name"] for row in json.loads(sandbox.network("list-ifaces").stdout)] == ["net1", "net2"]
        assert [pings(sandbox, address) for address in ("10.15.0.1", "10.16.0.1", "10.17.0.1")] == [True] * 3
        # A route of the user's own stays when the namespace changes.
        assert sandbox.network("add-route", {"dest": "10.70.0.0/16", "device": "eth0"}).stderr == ""
        assert sandbox.network("del-route", {"dest": "fd15::/64", "device": "eth0"}).stderr == ""
        carried.inside.run("ip", "route", "add", "10.71.0.0/16", "via", "10.15.0.1")
        assert settle() == []
        routes = [row["dest"] for row in json.loads(sandbox.network("list-routes").stdout)]
        assert routes == ["10.15.0.0/24", "10.16.0.0/24", "10.17.0.0/24", "10.70.0.0/16", "10.71.0.0/16"]
        for name in ("net1", "net2"):
            assert sandbox.network("del-iface", {"name": name}).stderr == ""
        assert sandbox.network("del-route", {"dest": "10.70.0.0/16"}).stderr == ""


def test_kinds_of_interfaces(carried: Carried) -> None:
    """A macvlan, a macvtap, a TAP and a bridge come along, each with packets; its ports and what is idle do not."""
    inside, outside = carried.inside, carried.outside
    carried.veth("eth0", 18)
    for number, kind in ((19, "macvlan"), (20, "macvtap")):
        outside.run("ip", "link", "add", f"p{number}", "type", "veth", "peer", "name", f"q{number}")
        outside.run("ip", "link", "add", "link", f"p{number}", "name", kind, "type", kind)
        outside.run("ip", "link", "set", kind, "netns", inside.name)
        for where, device, address in ((outside, f"q{number}", 1), (inside, kind, 3)):
            where.run("ip", "address", "add", f"10.{number}.0.{address}/24", "dev", device)
        for device in (f"p{number}", f"q{number}"):
            outside.run("ip", "link", "set", device, "up")
        inside.run("ip", "link", "set", kind, "up")
    inside.run("ip", "link", "add", "br0", "type", "bridge")
    inside.run("ip", "link", "add", "port", "type", "veth", "peer", "name", "gw21", "netns", outside.name)
    inside.run("ip", "link", "set", "port", "master", "br0", "up")
    inside.run("ip", "link", "add", "idle", "type", "veth", "peer", "name", "idle2")
    inside.run("ip", "address", "add", "10.21.0.3/24", "dev", "br0")
    outside.run("ip", "address", "add", "10.21.0.1/24", "dev", "gw21")
    inside.run("ip", "link", "set", "br0", "up")
    outside.run("ip", "link", "set", "gw21", "up")
    inside.tap("wire")
    assert carried.reconcile(creating=True) == []
    names = [row[0] for row in look(carried.sandbox.guest)[0]]
    assert sorted(str(name) for name in names) == ["br0", "eth0", "macvlan", "macvtap", "wire"]
    assert [pings(carried.sandbox, f"10.{number}.0.1") for number in (18, 19, 20, 21)] == [True] * 4
    assert [pings(outside, f"10.{number}.0.3") for number in (18, 19, 20, 21)] == [True] * 4


@contextmanager
def _relayed(first: int, second: int) -> Iterator[None]:
    """Frames that arrive at one of two TAPs are written to the other, as slirp4netns does with its own."""
    stopped, stop = os.pipe()

    def relay() -> None:
        while stopped not in (ready := select.select([first, second, stopped], [], [])[0]):
            for source in ready:
                os.write(second if source == first else first, os.read(source, 1 << 17))

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        os.close(stop)
        thread.join()
        os.close(stopped)


def test_tap_that_a_process_holds(carried: Carried) -> None:
    """A TAP that exists while another process holds it comes along with its MTU, and packets cross it both ways."""
    with ExitStack() as stack:
        held = []
        for where, name, host in ((carried.inside, "tap0", 3), (carried.outside, "far", 1)):
            with network.Namespace(f"/run/netns/{where.name}") as namespace:
                held += namespace.run(partial(create_tap, name))
            stack.callback(os.close, held[-1])
            where.run("ip", "address", "add", f"10.22.0.{host}/24", "dev", name)
            where.run("ip", "link", "set", name, "mtu", "65520", "up")
        stack.enter_context(_relayed(*held))
        assert carried.reconcile(creating=True) == []
        assert carried.same() == ["tap0"]
        large = ("-s", "20000")
        assert [pings(carried.sandbox, "10.22.0.1", *large), pings(carried.outside, "10.22.0.3", *large)] == [True] * 2
