"""Interfaces of a network namespace in the guest: carried along, crossed by packets, kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.carried.conftest import pings

if TYPE_CHECKING:
    from tests.system.carried.conftest import Carried


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
