"""Traffic control and neighbours as bytes, compared with what iproute2 sends (strace -e sendmsg of tc and ip 6.1)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.typed_addresses import ip, mac, network

from kata_runtime.address_types import MacAddress
from kata_runtime.errors import ProtocolError
from kata_runtime.netlink.carried_config import (
    add_portable_address,
    delete_portable_address,
    portable_addresses,
    portable_route,
)
from kata_runtime.netlink.link import unpack_link, without_own_addresses
from kata_runtime.netlink.message import Message
from kata_runtime.netlink.neighbour import (
    Neighbour,
    add_neighbour,
    delete_neighbour,
    neighbours_of,
    unpack_neighbour,
)
from kata_runtime.netlink.route import new_route, unpack_route
from kata_runtime.netlink.traffic import (
    RTM_NEWTFILTER,
    Filter,
    add_ingress,
    delete_ingress,
    filters_of,
    redirect_ingress,
)


def _hex(*lines: str) -> bytes:
    return bytes.fromhex("".join(lines))


def test_redirection_is_what_tc_asks_for() -> None:
    """The filter and the qdisc are the bytes of 'tc qdisc add' and 'tc filter add ... mirred egress redirect'."""
    assert add_ingress(3) == (
        "add an ingress qdisc to interface 3",
        36,
        0x600,
        _hex("00000000 03000000 0000ffff f1ffffff 00000000 0c000100 696e6772 65737300"),
    )
    assert redirect_ingress(3, 2, 27506) == (
        "redirect interface 3 to interface 2",
        44,
        0x600,
        _hex(
            "00000000 03000000 00000000 0000ffff 0003726b 08000100 75333200 60000200",
            "38000700 34000100 0b000100 6d697272 65640000 24000280 20000200 00000000",
            "00000000 04000000 00000000 00000000 01000000 02000000 24000500 01000100",
            "00000000 00000000 00000000 00000000 00000000 00000000 00000000",
        ),
    )
    assert delete_ingress(3)[1:] == (37, 0, _hex("00000000 03000000 0000ffff f1ffffff 00000000"))


def test_neighbours_are_what_ip_asks_for() -> None:
    """A permanent neighbour is set and deleted with the bytes of 'ip neighbour'."""
    added = add_neighbour(3, ip("10.0.0.1"), mac("02:00:00:00:00:01"))
    assert added[1:] == (28, 0x500, _hex("02000000 03000000 80000000 08000100 0a000001 0a000200 02000000 00010000"))
    assert unpack_neighbour(added.payload) == Neighbour(3, ip("10.0.0.1"), mac("02:00:00:00:00:01"), 0x80, 0)
    deleted = delete_neighbour(3, ip("::1"))
    assert deleted[1:3] == (29, 0)
    assert unpack_neighbour(deleted.payload) == Neighbour(3, ip("::1"), MacAddress(), 0, 0)
    proxy = Neighbour(3, ip("0.0.0.0"), MacAddress(), 0x80, 0x08)
    assert (unpack_neighbour(added.payload).is_permanent, proxy.is_permanent) == (True, False)


def test_filters_are_read_with_their_place() -> None:
    """Of a dump the preference and the kind of each filter count."""
    asked = redirect_ingress(3, 2, 27506)
    assert filters_of([Message(RTM_NEWTFILTER, 0, 1, asked.payload), Message(3, 0, 1, b"")]) == [Filter(27506, "u32")]


def test_tap_without_addresses_of_its_own() -> None:
    """The request is about the interface alone: an AF_INET6 address generation mode of none."""
    asked = without_own_addresses(7)
    assert asked[1:] == (16, 0, _hex("00000000 07000000 00000000 00000000 10001a80 0c000a80 05000800 01000000"))
    assert unpack_link(asked.payload)[:2] == (7, "")


def test_carried_address_brings_no_route() -> None:
    """An address travels without interface, label, flags and lifetime; it is added with noprefixroute and nodad."""
    four = _hex("02188080 05000000 08000100 0a000003 08000200 0a000003 08000400 0a0000ff 09000300 65746830 00000000")
    six = _hex("0a408000 05000000 14000100 fd000000 00000000 00000000 00000003 05000b00 03000000")
    carried = portable_addresses([Message(20, 0, 1, four), Message(20, 0, 1, six)], {})
    plain = _hex("02180080 00000000 08000100 0a000003 08000200 0a000003 08000400 0a0000ff")
    assert [tuple(found) for found in carried] == [
        (5, False, plain),
        (5, True, _hex("0a400000 00000000 14000100 fd000000 00000000 00000000 00000003")),
    ]
    assert add_portable_address(plain, 9)[1:] == (
        20,
        0x600,
        plain[:4] + _hex("09000000") + plain[8:] + _hex("08000800 00020000"),
    )
    assert add_portable_address(carried[1].payload, 9).payload[-4:] == _hex("02020000")
    assert delete_portable_address(plain, 9)[1:] == (21, 0, plain[:4] + _hex("09000000") + plain[8:])


def test_automatic_addresses() -> None:
    """Addresses that the other kernel makes itself are found by their origin, their lifetime, or the MAC in them."""
    permanent, passing = "80", "00"

    def is_automatic(address: str, flags: str = permanent, more: str = "") -> bool:
        payload = _hex("0a40", flags, "fd 05000000 14000100", IPv6Address(address).packed.hex(), more)
        return portable_addresses([Message(20, 0, 1, payload)], {5: mac("02:42:0a:00:00:03")})[0].is_automatic

    assert is_automatic("fe80::42:aff:fe00:3")
    assert is_automatic("fe80::1234", more="05000b00 03000000")
    assert is_automatic("fd00::1234", passing)
    assert is_automatic("fd00::1234", more="05000b00 02000000")
    assert [is_automatic(address) for address in ("fe80::1234", "fd00::42:aff:fe00:3")] == [False, False]


def test_carried_route_changes_its_interfaces_only() -> None:
    """A route through other interfaces and back is the same route; one through an unknown interface is refused."""
    route = new_route(network("default"), index=5, gateway=ip("10.0.0.1"), source=ip("10.0.0.3"))
    moved = portable_route(route, {5: 1})
    assert moved.next_hops[0].interface == 1
    assert portable_route(moved, {1: 5}) == portable_route(route, {5: 5})
    assert (moved.key, moved.source, moved.scope) == (route.key, route.source, route.scope)
    with pytest.raises(KeyError):
        portable_route(route, {1: 5})
    hops = _hex("10000000 05000000 08000500 0a000001 10000400 06000000 08000500 0a010001")
    several = unpack_route(
        _hex("02000000 fe030001 00000000") + (len(hops) + 4).to_bytes(2, "little") + b"\x09\0" + hops
    )
    there = portable_route(several, {5: 1, 6: 2})
    assert [(hop.interface, hop.weight, hop.flags) for hop in there.next_hops] == [(1, 1, 0), (2, 1, 4)]
    assert portable_route(there, {1: 5, 2: 6}) == several


@given(st.binary(max_size=80), st.sampled_from([20, 28, 44]))
def test_hostile_bytes_are_values_or_protocol_errors(data: bytes, kind: int) -> None:
    """No decoder ends in anything but a value or ProtocolError."""
    for decode in (filters_of, neighbours_of, lambda messages: portable_addresses(messages, {})):
        try:
            assert isinstance(decode([Message(kind, 0, 1, data)]), list)
        except ProtocolError:
            continue
