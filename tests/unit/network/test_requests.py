"""The JSON of kata-network: what is accepted, and the one line that refuses the rest."""

from __future__ import annotations

import json

import pytest
from tests.unit.typed_addresses import given_address, ip, mac

from kata_runtime.errors import InputError
from kata_runtime.network.request_fields import network_of
from kata_runtime.network.requests import (
    GivenRoute,
    NicRequest,
    RouteRequest,
    read_nic_name,
    read_nic_request,
    read_route_filters,
    read_route_requests,
    read_route_table,
)

NIC: dict[str, object] = {
    "device": "tap_test",
    "name": "eth-test",
    "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}],
    "hwAddr": "02:42:20:6F:a3:69",
    "mtu": 1500,
}
READ_NIC = NicRequest(
    device="tap_test",
    name="eth-test",
    addresses=(given_address("172.16.0.3/16"),),
    mac=mac("02:42:20:6f:a3:69"),
    mtu=1500,
    vhost_user_socket="",
    queues=0,
)
ROUTE: dict[str, object] = {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def test_nic_of_the_contract() -> None:
    """The contract's own example is read into checked values."""
    assert read_nic_request(encoded(NIC)) == READ_NIC


def test_keys_without_regard_to_case() -> None:
    """Upstream's spelling with its extra keys gives the same request."""
    upstream = {key.upper(): value for key, value in NIC.items()} | {
        "IPADDRESSES": [{"Family": 2, "Address": "172.16.0.3", "Mask": 16}],
        "RawFlags": 0,
        "PciPath": {},
        "LinkType": "tap",
        "pciAddr": "01.0/00",
    }
    assert read_nic_request(encoded(upstream)) == READ_NIC


def test_two_families_queues_and_socket() -> None:
    """Several addresses of both families, queues and a vhost-user socket come through."""
    addresses = [{"address": "10.0.0.1", "mask": "8"}, {"address": "2001:db8::1", "mask": "64"}]
    read = read_nic_request(
        encoded({**NIC, "IPAddresses": addresses, "queues": 5, "vhostUserSocket": "/run/a-b/c.sock"})
    )
    assert [given.text for given in read.addresses] == ["10.0.0.1/8", "2001:db8::1/64"]
    assert [given.value.address.family for given in read.addresses] == [2, 10]
    assert (read.queues, read.vhost_user_socket) == (5, "/run/a-b/c.sock")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, (True, False)),
        ({"offload": None, "dhcp": None}, (True, False)),
        ({"Offload": False, "DHCP": True}, (False, True)),
    ],
)
def test_offload_and_dhcp(given: dict[str, object], read: tuple[bool, bool]) -> None:
    """Offload is on and DHCP off unless the input says otherwise."""
    request = read_nic_request(encoded({**NIC, **given}))
    assert (request.offload, request.dhcp) == read


@pytest.mark.parametrize("absent", [None, []])
def test_no_address(absent: object) -> None:
    """An absent, null or empty list of addresses configures none."""
    without = {key: value for key, value in NIC.items() if key != "IPAddresses"}
    assert read_nic_request(encoded({**NIC, "IPAddresses": absent})).addresses == ()
    assert read_nic_request(encoded(without)).addresses == ()


@pytest.mark.parametrize(("field", "value"), [("mtu", 46), ("mtu", 9600), ("queues", 0), ("queues", 256)])
def test_numbers_at_their_limits(field: str, value: int) -> None:
    """The ends of each range are part of it."""
    assert getattr(read_nic_request(encoded({**NIC, field: value})), field) == value


NAME_RULE = "a NIC name has 1-15 characters of A-Z a-z 0-9 _ - . and starts with a letter"
BAD_VALUES: list[tuple[str, object, str]] = [
    ("device", "", f"device is ''; {NAME_RULE}"),
    ("device", "a/b", f"device is 'a/b'; {NAME_RULE}"),
    ("device", "a b", f"device is 'a b'; {NAME_RULE}"),
    ("device", "a\nb", f"device is 'a\\nb'; {NAME_RULE}"),
    ("device", "a\0b", "the input holds a NUL character in 'a\\x00b'"),
    ("device", "abcdefghijklmnop", f"device is 'abcdefghijklmnop'; {NAME_RULE}"),
    ("device", "eth\U0001f600", f"device is 'eth\\U0001f600'; {NAME_RULE}"),
    ("device", "1eth", f"device is '1eth'; {NAME_RULE}"),
    ("device", "x" * 100, f"device is '{'x' * 64}'... (100 characters); {NAME_RULE}"),
    ("device", 1, "device is 1; it must be a string"),
    ("device", None, "device is null; it must be a string"),
    ("name", ["eth0"], "name is a list; it must be a string"),
    ("name", "default", "name is 'default'; the kernel keeps this name for itself"),
    ("mtu", 45, "mtu is 45; it must be 46-9600"),
    ("mtu", 9601, "mtu is 9601; it must be 46-9600"),
    ("mtu", -1, "mtu is -1; it must be 46-9600"),
    ("mtu", "1500", "mtu is '1500'; it must be a whole number, 46-9600"),
    ("mtu", 1500.5, "mtu is 1500.5; it must be a whole number, 46-9600"),
    ("mtu", True, "mtu is true; it must be a whole number, 46-9600"),
    ("mtu", None, "mtu is null; it must be a whole number, 46-9600"),
    (
        "hwAddr",
        "01:42:20:6f:a3:69",
        "hwAddr 01:42:20:6f:a3:69 is a multicast address; a NIC needs a unicast one",
    ),
    (
        "hwAddr",
        "00:00:00:00:00:00",
        "hwAddr 00:00:00:00:00:00 is the zero address; a NIC needs a unicast one",
    ),
    (
        "hwAddr",
        "02:42:20:6f:a3",
        "hwAddr is '02:42:20:6f:a3'; a MAC address is written like 02:42:20:6e:03:01",
    ),
    (
        "hwAddr",
        "02-42-20-6f-a3-69",
        "hwAddr is '02-42-20-6f-a3-69'; a MAC address is written like 02:42:20:6e:03:01",
    ),
    (
        "hwAddr",
        "g2:42:20:6f:a3:69",
        "hwAddr is 'g2:42:20:6f:a3:69'; a MAC address is written like 02:42:20:6e:03:01",
    ),
    ("hwAddr", {}, "hwAddr is an object; it must be a string"),
    ("queues", -1, "queues is -1; it must be 0-256"),
    ("queues", 257, "queues is 257; it must be 0-256"),
    ("queues", 300, "queues is 300; it must be 0-256"),
    ("queues", 1.5, "queues is 1.5; it must be a whole number, 0-256"),
    ("offload", 0, "offload is 0; it must be true or false"),
    ("dhcp", "true", "dhcp is 'true'; it must be true or false"),
    ("queues", "2", "queues is '2'; it must be a whole number, 0-256"),
    ("vhostUserSocket", "run/x", "vhostUserSocket is 'run/x'; it must be an absolute path"),
    (
        "vhostUserSocket",
        "/run/../x",
        (
            "vhostUserSocket is '/run/../x': '..' cannot be a part of it; "
            "parts are letters, digits, '-', '_' and '.', but neither '.' nor '..'"
        ),
    ),
    (
        "vhostUserSocket",
        "/run/a b",
        (
            "vhostUserSocket is '/run/a b': 'a b' cannot be a part of it; "
            "parts are letters, digits, '-', '_' and '.', but neither '.' nor '..'"
        ),
    ),
    (
        "vhostUserSocket",
        "/" + "x" * 107,
        (
            f"vhostUserSocket has 108 bytes: '/{'x' * 63}'... (108 characters); "
            "the kernel connects to socket paths of at most 107 bytes; use a shorter one"
        ),
    ),
    (
        "vhostUserSocket",
        "/" + "x" * 128,
        f"vhostUserSocket has 129 bytes: '/{'x' * 63}'... (129 characters); at most 128 are allowed",
    ),
    ("vhostUserSocket", 7, "vhostUserSocket is 7; it must be a string"),
    ("IPAddresses", {}, 'IPAddresses is an object; it must be a list of {"address","mask"}'),
    (
        "IPAddresses",
        ["10.0.0.1/8"],
        'IPAddresses[0] is \'10.0.0.1/8\'; it must be an object {"address","mask"}',
    ),
    ("IPAddresses", [{"mask": "8"}], "IPAddresses[0] lacks 'address'"),
    ("IPAddresses", [{"address": "10.0.0.1"}], "IPAddresses[0] lacks 'mask'"),
    (
        "IPAddresses",
        [{"addr": "10.0.0.1"}],
        "IPAddresses[0] has no field 'addr'; did you mean 'address'?",
    ),
    ("Mtus", 1, "a NIC has no field 'Mtus'; did you mean 'mtu'?"),
    (
        "colour",
        1,
        (
            "a NIC has no field 'colour'; "
            "it has device, name, IPAddresses, hwAddr, mtu, vhostUserSocket, queues, offload, dhcp"
        ),
    ),
    ("MTU", 1500, "the input has the key 'MTU' twice, the first time as 'mtu'; keep one of them"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_bad_value(field: str, value: object, message: str) -> None:
    """A value outside its limits is refused in one line that names field, value and rule."""
    with pytest.raises(InputError) as raised:
        read_nic_request(encoded({**NIC, field: value}))
    assert str(raised.value) == message


HOST = "give a host's address"
BAD_ADDRESSES: list[tuple[object, object, str]] = [
    ("300.1.1.1", "8", "IPAddresses[0].address is '300.1.1.1'; it must be an IPv4 or IPv6 address"),
    ("10.1", "8", "IPAddresses[0].address is '10.1'; it must be an IPv4 or IPv6 address"),
    ("fe80::1%eth0", "64", "IPAddresses[0].address is 'fe80::1%eth0'; it must be an IPv4 or IPv6 address"),
    ("0.0.0.0", "8", f"IPAddresses[0].address 0.0.0.0 is the unspecified address; {HOST}"),
    ("::", "8", f"IPAddresses[0].address :: is the unspecified address; {HOST}"),
    ("224.0.0.1", "8", f"IPAddresses[0].address 224.0.0.1 is a multicast address; {HOST}"),
    ("ff02::1", "8", f"IPAddresses[0].address ff02::1 is a multicast address; {HOST}"),
    ("255.255.255.255", "8", f"IPAddresses[0].address 255.255.255.255 is the broadcast address; {HOST}"),
    (1, "8", "IPAddresses[0].address is 1; it must be a string"),
    ("10.0.0.1", "33", "IPAddresses[0].mask is '33'; it must be a prefix length, 1-32"),
    ("10.0.0.1", 0, "IPAddresses[0].mask is 0; it must be a prefix length, 1-32"),
    ("10.0.0.1", "08", "IPAddresses[0].mask is '08'; it must be a prefix length, 1-32"),
    ("10.0.0.1", "255.0.0.0", "IPAddresses[0].mask is '255.0.0.0'; it must be a prefix length, 1-32"),
    ("10.0.0.1", True, "IPAddresses[0].mask is true; it must be a prefix length, 1-32"),
    ("10.0.0.1", None, "IPAddresses[0].mask is null; it must be a prefix length, 1-32"),
    ("2001:db8::1", "129", "IPAddresses[0].mask is '129'; it must be a prefix length, 1-128"),
]


@pytest.mark.parametrize(("address", "mask", "message"), BAD_ADDRESSES)
def test_bad_address(address: object, mask: object, message: str) -> None:
    """An address that no host can have, or an impossible mask, is refused with its place in the list."""
    with pytest.raises(InputError) as raised:
        read_nic_request(encoded({**NIC, "IPAddresses": [{"address": address, "mask": mask}]}))
    assert str(raised.value) == message


def test_address_twice() -> None:
    """Two spellings of one address are one address too many."""
    addresses = [{"address": "2001:db8::1", "mask": 64}, {"address": "2001:db8:0::1", "mask": 64}]
    with pytest.raises(InputError) as raised:
        read_nic_request(encoded({**NIC, "IPAddresses": addresses}))
    assert str(raised.value) == "IPAddresses[1] repeats the address 2001:db8:0::1"


@pytest.mark.parametrize("field", ["device", "name", "hwAddr", "mtu"])
def test_missing_field(field: str) -> None:
    """Each required field is missed by name."""
    with pytest.raises(InputError) as raised:
        read_nic_request(encoded({key: value for key, value in NIC.items() if key != field}))
    assert str(raised.value) == f"the NIC lacks {field!r}"


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), ([], "a list"), ("x", "'x'"), (1, "1"), (False, "false")])
def test_nic_is_an_object(value: object, shown: str) -> None:
    """Any JSON value but an object is refused."""
    for read in (read_nic_request, read_nic_name):
        with pytest.raises(InputError) as raised:
            read(encoded(value))
        assert str(raised.value) == f"the input is {shown}; a NIC is described by one JSON object"


def test_name_alone() -> None:
    """del-iface looks at the name and at no other value."""
    assert read_nic_name(b'{"name": "eth-test", "mtu": "nonsense", "IPAddresses": 7}') == "eth-test"
    with pytest.raises(InputError) as raised:
        read_nic_name(b"{}")
    assert str(raised.value) == "the NIC lacks 'name'"


def _route(
    network: str, gateway: str, device: str, source: str = "", scope: int | None = None, *, dest: str | None = None
) -> RouteRequest:
    """A request; ``network`` may be empty. ``dest`` is as it was given, where that is not the network's own text."""
    return RouteRequest(
        network_of(network, "") if network else None,
        ip(gateway) if gateway else None,
        device,
        ip(source) if source else None,
        scope,
        GivenRoute(network if dest is None else dest, gateway, device),
    )


GOOD_ROUTES: list[tuple[object, list[RouteRequest]]] = [
    (ROUTE, [_route("0.0.0.0/0", "172.16.0.1", "eth-test", dest="default")]),
    (
        [
            {"Dest": "172.17.10.10/24", "Device": "lo"},
            {"dest": "2001:db8::/32", "gateway": "fe80::1", "device": "e"},
        ],
        [
            _route("172.17.10.0/24", "", "lo", dest="172.17.10.10/24"),
            _route("2001:db8::/32", "fe80::1", "e"),
        ],
    ),
    (
        {"Dest": "", "Gateway": "10.0.0.1", "Device": "e", "Source": "10.0.0.2", "Scope": 253, "Family": 0},
        [_route("0.0.0.0/0", "10.0.0.1", "e", "10.0.0.2", 253, dest="")],
    ),
]


@pytest.mark.parametrize(("value", "routes"), GOOD_ROUTES)
def test_routes(value: object, routes: list[RouteRequest]) -> None:
    """Objects and lists of them are read, spelled as given."""
    assert read_route_requests(encoded(value)) == routes
    assert read_route_table(encoded(value)) == routes


def test_filters() -> None:
    """del-route needs the destination only and matches on nothing that the contract does not name."""
    given = [{"dest": "default"}, {"dest": "10.0.0.0/8", "Source": "10.0.0.1", "Scope": 253}]
    assert read_route_filters(encoded(given)) == [
        _route("", "", "", dest="default"),
        _route("10.0.0.0/8", "", ""),
    ]


@pytest.mark.parametrize("value", [None, []])
def test_empty_table(value: object) -> None:
    """null and the empty list are no routes to update-routes, and a mistake to the others."""
    assert read_route_table(encoded(value)) == []
    for read in (read_route_requests, read_route_filters):
        with pytest.raises(InputError) as raised:
            read(encoded(value))
        message = "the list of routes is empty; give at least one route"
        assert str(raised.value) == (
            message if value == [] else "the input is null; give one route object or a list of them"
        )


DEST_RULE = "it must be an address, address/prefix length, or 'default'"
BAD_ROUTES: list[tuple[object, str]] = [
    ({"device": "e"}, "the route lacks 'dest'"),
    ({"dest": "10.0.0.0/8"}, "the route lacks 'device'"),
    ({"dest": "default", "device": "e"}, "dest 'default' needs a gateway"),
    ({**ROUTE, "dest": "10.0.0.0/33"}, "dest is '10.0.0.0/33'; its prefix length must be 0-32"),
    ({**ROUTE, "dest": "2001:db8::/129"}, "dest is '2001:db8::/129'; its prefix length must be 0-128"),
    ({**ROUTE, "dest": "10.0.0.0/"}, "dest is '10.0.0.0/'; its prefix length must be 0-32"),
    ({**ROUTE, "dest": "300.1.1.1"}, f"dest is '300.1.1.1'; {DEST_RULE}"),
    ({**ROUTE, "dest": ["10.0.0.1"]}, "dest is a list; it must be a string"),
    ({**ROUTE, "gateway": "nowhere"}, "gateway is 'nowhere'; it must be an IPv4 or IPv6 address"),
    ({**ROUTE, "gateway": "0.0.0.0"}, f"gateway 0.0.0.0 is the unspecified address; {HOST}"),
    (
        {**ROUTE, "dest": "10.0.0.0/8", "gateway": "fe80::1"},
        "gateway fe80::1 and dest 10.0.0.0/8 are of different families; both must be IPv4 or both IPv6",
    ),
    (
        {**ROUTE, "Source": "2001:db8::1"},
        ("Source 2001:db8::1 is not of the family of the route; dest, gateway and Source must all be IPv4 or all IPv6"),
    ),
    ({**ROUTE, "device": "abcdefghijklmnop"}, f"device is 'abcdefghijklmnop'; {NAME_RULE}"),
    ({**ROUTE, "Scope": 256}, "Scope is 256; it must be 0-255"),
    ({**ROUTE, "via": "10.0.0.1"}, "a route has no field 'via'; it has dest, gateway, device, Source, Scope"),
    ([ROUTE, 1], "route 2 is 1; a route is described by one JSON object"),
    ([ROUTE, {**ROUTE, "dest": "x"}], f"route 2: dest is 'x'; {DEST_RULE}"),
    ("default", "the input is 'default'; give one route object or a list of them"),
]


@pytest.mark.parametrize(("value", "message"), BAD_ROUTES)
def test_bad_route(value: object, message: str) -> None:
    """A route that cannot be is refused in one line, with its number when it stands in a list."""
    with pytest.raises(InputError) as raised:
        read_route_requests(encoded(value))
    assert str(raised.value) == message
