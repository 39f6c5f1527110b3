"""Interfaces, addresses and notifications of a real kernel, seen through the netlink codec."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from tests.unit.typed_addresses import interface_address, mac

from kata_runtime.errors import KernelError
from kata_runtime.netlink.address import (
    add_address,
    addresses_of,
    dump_addresses,
)
from kata_runtime.netlink.exchange import attempt_all, call, call_each, dump_each
from kata_runtime.netlink.generic import find_family
from kata_runtime.netlink.link import RTNLGRP_LINK, dump_links, get_link, links_of, set_link, unpack_link
from kata_runtime.netlink.message import iter_messages
from kata_runtime.netlink.transport import Family


def _link(session: Any, name: str) -> Any:
    return links_of(call(session.transport, Family.ROUTE, get_link(name)))[0]


def test_links_and_addresses_are_what_iproute2_shows(session: Any) -> None:
    """One round trip lists the interfaces and addresses that ``ip -j address`` lists."""
    links, addresses = call_each(session.transport, Family.ROUTE, [dump_links(), dump_addresses()])
    ours = {
        link.name: (
            link.index,
            str(link.mac),
            link.mtu,
            sorted(str(each.value) for each in addresses_of(addresses) if each.index == link.index),
        )
        for link in links_of(links)
    }
    theirs = {
        link["ifname"]: (
            link["ifindex"],
            link["address"],
            link["mtu"],
            sorted(f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]),
        )
        for link in json.loads(session.ip("-j", "address"))
    }
    assert ours == theirs


def test_dumps_in_one_block(session: Any) -> None:
    """A hundred dumps that go to the kernel one by one have the rows of each alone."""
    asked = [dump_links(), dump_addresses()] * 50
    alone = [[row.payload for row in rows] for rows in call_each(session.transport, Family.ROUTE, asked[:2])]
    together = list(dump_each(session.transport, Family.ROUTE, asked, lambda _, payload: bytes(payload)))
    assert [index for index, _ in together] == list(range(100))
    # Counters and states of links change between two dumps; a lost dump would change their number.
    assert [len(rows) for _, rows in together] == [len(rows) for rows in alone] * 50
    assert [rows for index, rows in together if index % 2] == alone[1:] * 50


def test_configuring_an_interface(session: Any) -> None:
    """Name, MAC, MTU, state and addresses reach the kernel in one batch; IPv6 goes when it is set down."""
    link = _link(session, "eth2")
    call_each(
        session.transport,
        Family.ROUTE,
        [
            set_link(link.index, name="eth-test", mac=mac("02:42:20:6e:03:01"), mtu=1400, up=True),
            add_address(link.index, interface_address("172.19.0.3/16")),
            add_address(link.index, interface_address("fd09::3/64")),
        ],
    )
    found = _link(session, "eth-test")
    assert (str(found.mac), found.mtu, found.is_up, found.kind) == ("02:42:20:6e:03:01", 1400, True, "veth")
    shown = session.ip("-br", "address", "show", "dev", "eth-test").split()[2:]
    assert shown == ["172.19.0.3/16", "fd09::3/64"]
    call(session.transport, Family.ROUTE, set_link(link.index, up=False))
    assert session.ip("-br", "address", "show", "dev", "eth-test").split()[1:] == ["DOWN", "172.19.0.3/16"]


def test_failures_are_told_by_index(session: Any) -> None:
    """Of 5,000 requests in several blocks exactly the ones that the kernel refused are reported."""
    index = _link(session, "eth2").index
    requests = [add_address(index, interface_address(f"10.9.0.{number}/24")) for number in range(256)] * 20
    failures = attempt_all(session.transport, Family.ROUTE, requests)
    assert list(failures) == list(range(256, 5120))
    assert {error.errno for error in failures.values()} == {errno.EEXIST}


def test_unknown_interface_and_family(session: Any) -> None:
    """What does not exist is the kernel's errno with the words of the request."""
    with pytest.raises(KernelError) as caught:
        call(session.transport, Family.ROUTE, get_link("nosuch"))
    assert (str(caught.value), caught.value.errno) == (
        "look up interface 'nosuch': No such device",
        errno.ENODEV,
    )
    with pytest.raises(KernelError) as caught:
        find_family(session.transport, "nosuch")
    assert caught.value.errno == errno.ENOENT
    assert find_family(session.transport, "nlctrl")[:2] == ("nlctrl", 16)


def test_notifications_follow_a_subscription(session: Any) -> None:
    """A rename is announced to a socket that joined the link group before."""
    with session.transport.subscribe(Family.ROUTE, RTNLGRP_LINK) as notifications:
        session.ip("link", "set", "eth2", "name", "renamed")
        names = (unpack_link(message.payload).name for data in notifications for message in iter_messages(data))
        # The kernel announces the states of links later than they are set up (net/core/link_watch.c), maybe before it.
        assert "renamed" in names
