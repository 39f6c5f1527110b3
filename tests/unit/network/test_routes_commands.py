"""The route commands against a real kernel in a private namespace, with iproute2 as oracle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.typed_addresses import listed_route

from kata_runtime.errors import ConflictError, GuestError, InputError, KataError
from kata_runtime.network.requests import (
    RouteRequest,
    read_route_filters,
    read_route_requests,
    read_route_table,
)
from kata_runtime.network.route_journal import recover
from kata_runtime.network.routes import add_routes, delete_routes, list_routes, update_routes
from kata_runtime.sandbox.record import Work, WorkKind

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTED = [
    listed_route("172.16.0.0/16", "", "eth0"),
    listed_route("172.17.0.0/16", "", "eth1"),
    listed_route("fd00::/64", "", "eth0"),
    listed_route("fd01::/64", "", "eth1"),
]


def _documents(rows: tuple[str, ...]) -> bytes:
    keys = ("dest", "gateway", "device", "source")
    return json.dumps([dict(zip(keys, row.split(), strict=False)) for row in rows]).replace('"-"', '""').encode()


def wanted(*rows: str) -> list[RouteRequest]:
    """``dest gateway device [source]`` a row, ``-`` for none, read as add-route reads its input."""
    return read_route_requests(_documents(rows))


def filters(*rows: str) -> list[RouteRequest]:
    """The same, read as del-route reads it."""
    return read_route_filters(_documents(rows))


def table(*rows: str) -> list[RouteRequest]:
    """The same, read as update-routes reads it."""
    return read_route_table(_documents(rows))


class BreakingTransport:
    """Gives out after ``left`` answers, as a guest that dies."""

    def __init__(self, inner: Any, left: int) -> None:
        self.inner = inner
        self.left = left

    def exchange(self, family: Any, blocks: Any) -> Iterator[bytes]:
        """Pass on what the kernel answers until the end."""
        for answer in self.inner.exchange(family, blocks):
            if self.left == 0:
                raise GuestError("the guest is gone")
            self.left -= 1
            yield answer


def test_list_shows_connected_routes_without_link_local(session: Any) -> None:
    """A fresh namespace lists its connected routes, IPv4 before IPv6, and nothing else."""
    assert list_routes(session) == CONNECTED


def test_add_is_what_iproute2_shows(session: Any) -> None:
    """Defaults of both families, masked host bits, a host route on lo: iproute2 shows what was asked."""
    add_routes(
        session,
        wanted(
            "default 172.16.0.1 eth0",
            "172.20.10.10/16 172.17.0.1 eth1",
            "9.9.9.9 - lo",
            "default fd00::1 eth0",
            "fd77::5/64 - eth1",
        ),
    )
    assert session.ip("route").split("\n") == [
        "default via 172.16.0.1 dev eth0 ",
        "9.9.9.9 dev lo scope link ",
        "172.16.0.0/16 dev eth0 proto kernel scope link src 172.16.0.3 ",
        "172.17.0.0/16 dev eth1 proto kernel scope link src 172.17.0.3 ",
        "172.20.0.0/16 via 172.17.0.1 dev eth1 ",
        "",
    ]
    assert session.ip("-6", "route").split("\n") == [
        "fd00::/64 dev eth0 proto kernel metric 256 pref medium",
        "fd01::/64 dev eth1 proto kernel metric 256 pref medium",
        "fd77::/64 dev eth1 metric 1024 pref medium",
        "default via fd00::1 dev eth0 metric 1024 pref medium",
        "",
    ]
    assert session.record.pending == ()
    assert list(session.directory.iterdir()) == []


def test_add_keeps_the_order_of_the_list(session: Any) -> None:
    """A gateway can be reached over a route that stands before it in the same list."""
    add_routes(session, wanted("7.7.7.7 - eth0", "default 7.7.7.7 eth0"))
    assert list_routes(session)[:2] == [
        listed_route("default", "7.7.7.7", "eth0"),
        listed_route("7.7.7.7", "", "eth0"),
    ]


BAD_ADDS = [
    (
        "12.0.0.0/8 1.2.3.4 eth1",
        InputError,
        (
            "gateway '1.2.3.4' cannot be reached through device 'eth1'; "
            "give one in a network of the device, or add a route to it first"
        ),
    ),
    (
        "fd88::/64 fd66::1 eth0",
        InputError,
        (
            "gateway 'fd66::1' cannot be reached through device 'eth0'; "
            "give one in a network of the device, or add a route to it first"
        ),
    ),
    (
        "172.16.9.9/16 172.17.0.1 eth1",
        ConflictError,
        "a route to '172.16.0.0/16' exists already ('172.16.0.0/16' on 'eth0'); delete it first",
    ),
    (
        "12.0.0.0/8 172.16.0.3 eth0",
        InputError,
        "gateway '172.16.0.3' is an address of the container itself; give the address of a neighbour",
    ),
    (
        "12.0.0.0/8 - eth2",
        ConflictError,
        "device 'eth2' is down in the container; set it up first",
    ),
    (
        "12.0.0.0/8 - eth9",
        InputError,
        "device 'eth9' does not exist in the container; list-ifaces shows the NICs it has",
    ),
    (
        "10.0.0.0/8 172.16.0.2 eth0",
        InputError,
        "a route to '10.0.0.0/8' via '172.16.0.2' on 'eth0' is in the list twice; one route a destination",
    ),
]


@pytest.mark.parametrize(("third", "kind", "sentence"), BAD_ADDS, ids=[row[0] for row in BAD_ADDS])
def test_add_is_all_or_nothing(session: Any, third: str, kind: type[KataError], sentence: str) -> None:
    """When the third of a list cannot be, the message names it and the first two are gone again."""
    before = session.state()
    with pytest.raises(kind) as caught:
        add_routes(session, wanted("10.0.0.0/8 172.16.0.1 eth0", "11.0.0.0/8 172.17.0.1 eth1", third))
    assert str(caught.value) == sentence
    assert session.state() == before
    assert session.record.pending == ()


RICH = """route add 50.0.0.0/8 nexthop via 172.16.0.1 dev eth0 weight 3 nexthop via 172.17.0.1 dev eth1
route append 60.0.0.0/8 via 172.16.0.1 metric 5 src 172.16.0.3 mtu 1400 advmss 1200
route append 60.0.0.0/8 via 172.16.0.2 metric 5 proto 77
route append 60.0.0.0/8 via 172.16.0.9 metric 5
route append 60.0.0.0/8 dev eth1 metric 9 scope host
route add 61.0.0.0/8 via 1.1.1.1 dev eth0 onlink
route add blackhole 70.0.0.0/8
-6 route add fd50::/64 nexthop via fd00::1 dev eth0 nexthop via fd01::1 dev eth1
-6 route add fd51::/64 via fd00::1 dev eth0 metric 7 mtu 1300 proto static
-6 route add unreachable fd52::/64"""


@pytest.fixture
def rich(session: Any) -> Any:
    """A session with routes of every kind that has to survive a failure."""
    for line in RICH.split("\n"):
        session.ip(*line.split())
    return session


def test_list_shows_each_next_hop(rich: Any) -> None:
    """A multipath route appears once per next hop; special routes without a device show none."""
    listed = list_routes(rich)
    assert [route for route in listed if str(route.dest) in ("50.0.0.0/8", "fd50::/64", "70.0.0.0/8")] == [
        listed_route("50.0.0.0/8", "172.16.0.1", "eth0"),
        listed_route("50.0.0.0/8", "172.17.0.1", "eth1"),
        listed_route("70.0.0.0/8", "", ""),
        listed_route("fd50::/64", "fd00::1", "eth0"),
        listed_route("fd50::/64", "fd01::1", "eth1"),
    ]


def test_delete_by_destination_takes_all_metrics_and_gateways(rich: Any) -> None:
    """``dest`` alone deletes every route to it, and nothing else."""
    before = list_routes(rich)
    delete_routes(rich, filters("60.0.0.0/8", "fd50::/64"))
    assert list_routes(rich) == [route for route in before if str(route.dest) not in ("60.0.0.0/8", "fd50::/64")]


def test_delete_default_means_both_families(session: Any) -> None:
    """``default`` without a gateway matches the default routes of both families; with one, only its own."""
    routes = wanted("default 172.16.0.1 eth0", "default fd00::1 eth0")
    add_routes(session, routes)
    delete_routes(session, filters("default"))
    assert list_routes(session) == CONNECTED
    add_routes(session, routes)
    delete_routes(session, filters("default fd00::1"))
    assert list_routes(session) == [listed_route("default", "172.16.0.1", "eth0"), *CONNECTED]


def test_delete_takes_single_next_hops(rich: Any) -> None:
    """A gateway or device filter takes its next hop out of a multipath route and leaves the others alone."""
    delete_routes(rich, filters("50.0.0.0/8 172.16.0.1", "fd50::/64 - eth1", "60.0.0.0/8 172.16.0.2"))
    assert rich.ip("route", "show", "50.0.0.0/8") == "50.0.0.0/8 via 172.17.0.1 dev eth1 \n"
    assert rich.ip("-6", "route", "show", "fd50::/64") == "fd50::/64 via fd00::1 dev eth0 metric 1024 pref medium\n"
    assert "172.16.0.2" not in rich.ip("route", "show", "60.0.0.0/8")


EVERY_KIND = filters("60.0.0.0/8 172.16.0.2", "50.0.0.0/8 172.16.0.1", "61.0.0.0/8", "fd51::/64", "fd50::/64 fd00::1")


def test_delete_without_a_match_changes_nothing(rich: Any) -> None:
    """One request of a list that matches nothing keeps all the others' routes in place."""
    before = rich.state()
    with pytest.raises(InputError) as caught:
        delete_routes(rich, [*EVERY_KIND, *filters("1.1.1.1 172.16.0.1 eth0")])
    assert str(caught.value) == (
        "no route to '1.1.1.1' via '172.16.0.1' on 'eth0' in the container; list-routes shows the routes it has"
    )
    assert rich.state() == before


@pytest.mark.parametrize("answers", range(8))
def test_a_dying_guest_leaves_all_or_nothing(rich: Any, answers: int) -> None:
    """Whichever answer is the last before the guest dies, recovery puts every route back as it was."""
    before = rich.state()
    rich.transport, alive = BreakingTransport(rich.transport, answers), rich.transport
    try:
        delete_routes(rich, EVERY_KIND)
        done = True
    except GuestError:
        done = False
    rich.transport = alive
    assert done == (answers >= 5)
    if rich.record.pending:
        assert rich.record.pending == (Work(WorkKind.ROUTES),)
        recover(rich)
    assert (rich.state() == before) == (not done)
    assert rich.record.pending == ()
    assert list(rich.directory.iterdir()) == []


def test_recovery_after_a_kill_restores_byte_for_byte(rich: Any) -> None:
    """Routes deleted by a command that never came back are restored with all attributes, in order."""
    before = rich.state()
    alive = rich.transport
    for spare in (False, True):
        rich.transport = BreakingTransport(alive, 4)
        with pytest.raises(GuestError):
            delete_routes(rich, [*EVERY_KIND, *(filters("60.0.0.0/8 172.16.0.1") if spare else [])])
        rich.transport = alive
        assert rich.record.pending == (Work(WorkKind.ROUTES),)
        assert rich.state() != before
        recover(rich)
        assert rich.state() == before


def test_update_changes_only_what_differs(rich: Any) -> None:
    """What stays is not touched, the default changes in one step, kernel-made routes stay, the rest goes."""
    add_routes(rich, wanted("default 172.16.0.1 eth0", "default fd00::1 eth0"))
    with rich.transport.subscribe(0, 7) as notifications:  # RTNLGRP_IPV4_ROUTE
        resulting = update_routes(
            rich,
            table(
                "default 172.17.0.1 eth1",
                "8.8.8.8 7.7.7.7 eth0",
                "7.7.7.7 - eth0",
                "50.0.0.0/8 172.16.0.1 eth0",
                "50.0.0.0/8 172.17.0.1 eth1",
                "default fd00::1 eth0",
            ),
        )
        first = [next(notifications) for _ in range(9)]
    assert resulting == [
        listed_route("default", "172.17.0.1", "eth1"),
        listed_route("7.7.7.7", "", "eth0"),
        listed_route("8.8.8.8", "7.7.7.7", "eth0"),
        listed_route("50.0.0.0/8", "172.16.0.1", "eth0"),
        listed_route("50.0.0.0/8", "172.17.0.1", "eth1"),
        listed_route("default", "fd00::1", "eth0"),
    ]
    kinds = [int.from_bytes(data[4:6], "little") for data in first]
    assert kinds == [24, 24, 24, 25, 25, 25, 25, 25, 25]
    assert [data[17] for data in first].count(0) == 1  # the default route: one message, a replacement
    assert set(list_routes(rich)) == {*resulting, *CONNECTED}


def test_update_refused_half_way_changes_nothing(rich: Any) -> None:
    """An unreachable gateway at the end of the list leaves the table as it was."""
    add_routes(rich, wanted("default 172.16.0.1 eth0"))
    before = rich.state()
    with pytest.raises(InputError):
        update_routes(rich, table("default 172.17.0.1 eth1", "11.0.0.0/8 1.2.3.4 eth0"))
    assert rich.state() == before


def test_update_with_nothing_leaves_the_kernels_own(rich: Any) -> None:
    """An empty list removes all but the connected routes."""
    assert update_routes(rich, read_route_table(b"null")) == []
    assert list_routes(rich) == CONNECTED


def test_update_refuses_two_routes_to_one_destination(session: Any) -> None:
    """Both are in the list, new or already in the table, so the message speaks of the list and not of the table."""
    sentence = "a route to '12.0.0.0/8' via '172.17.0.1' on 'eth1' is in the list twice; one route a destination"
    rows = table("12.0.0.0/8 172.16.0.1 eth0", "12.0.0.0/8 172.17.0.1 eth1")
    with pytest.raises(InputError) as caught:
        update_routes(session, rows)
    assert str(caught.value) == sentence
    update_routes(session, rows[:1])
    with pytest.raises(InputError) as caught:
        update_routes(session, rows)
    assert str(caught.value) == sentence
    assert list_routes(session)[0] == listed_route("12.0.0.0/8", "172.16.0.1", "eth0")


HIDDEN = ("fe80::/64 - eth0", "ff05::/16 - eth0")


def test_unlisted_routes_can_be_deleted_and_replaced(session: Any) -> None:
    """Link-local and multicast routes that a command added are not listed, but deleted; the kernel's own stay."""
    session.ip("-6", "route", "add", "fe80::/64", "dev", "eth0", "proto", "kernel", "metric", "256")
    before = session.state()
    add_routes(session, wanted(*HIDDEN))
    assert list_routes(session) == CONNECTED
    with pytest.raises(ConflictError):
        add_routes(session, wanted(HIDDEN[1]))
    delete_routes(session, filters(*HIDDEN))
    assert session.state() == before
    for _ in range(2):
        # kata-netmon sends the same list again, and with it fe80::/64.
        assert update_routes(session, table(*HIDDEN, "12.0.0.0/8 172.16.0.1 eth0")) == [
            listed_route("12.0.0.0/8", "172.16.0.1", "eth0")
        ]
    assert update_routes(session, table()) == []
    assert session.state() == before
    with pytest.raises(InputError):
        delete_routes(session, filters(HIDDEN[0]))


def test_two_thousand_routes(session: Any) -> None:
    """2,000 routes in one list are added, listed and deleted whole."""
    rows = tuple(f"10.{number >> 8}.{number & 255}.0/24 172.16.0.1 eth0" for number in range(2000))
    add_routes(session, wanted(*rows))
    expected = [listed_route(*row.split()) for row in rows]
    assert list_routes(session) == [*expected, *CONNECTED]
    delete_routes(session, filters(*rows))
    assert list_routes(session) == CONNECTED
