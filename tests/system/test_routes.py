"""Routes of a real guest, with iproute2 inside the guest as oracle and packets as proof."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.system.conftest import nic
from tests.unit.network.test_routes_model import agree, sequences

from kata_runtime.network.routes import update_routes

if TYPE_CHECKING:
    from collections.abc import Iterator

Route = dict[str, str]


def _json(*rows: str) -> str:
    """``dest gateway device`` a row, ``-`` for none."""
    return json.dumps(
        [
            {
                key: "" if word == "-" else word
                for key, word in zip(("dest", "gateway", "device"), row.split(), strict=False)
            }
            for row in rows
        ]
    )


def _run(sandbox: Any, verb: str, *rows: str) -> Any:
    return sandbox.cli("kata-network", verb, sandbox.id, "-", stdin=_json(*rows))


def _listed(sandbox: Any) -> list[Route]:
    done = sandbox.cli("kata-network", "list-routes", sandbox.id)
    assert (done.returncode, done.stderr) == (0, "")
    listed: list[Route] = json.loads(done.stdout)
    return listed


def _oracle(sandbox: Any) -> list[Route]:
    """The main tables according to the guest's own iproute2, in the format of list-routes."""
    # The path: the shell of the guest would take its own ip, which knows less.
    script = "for family in -4 -6; do /sbin/ip $family -j route show table main || exit; echo; done"
    done = sandbox.guest("sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, ""), done
    found = []
    for line in done.stdout.splitlines():
        for route in json.loads(line or "[]"):
            if route["dst"] == "fe80::/64" or route["dst"].startswith("ff00:"):
                continue
            for hop in route.get("nexthops", [route]):
                gateway = hop.get("gateway") or hop.get("via", {}).get("host", "")
                found.append({"dest": route["dst"], "gateway": gateway, "device": hop.get("dev", "")})
    return found


@pytest.fixture
def wired(sandbox: Any, namespace: Any) -> Iterator[Any]:
    """A sandbox with eth-test (172.16.0.3/16, fd00::3/64) on a TAP whose other side is the namespace."""
    namespace.tap("tap_test")
    for address in ("172.16.0.1/16", "fd00::1/64"):
        namespace.run("ip", "address", "add", address, "dev", "tap_test", *(("nodad",) if ":" in address else ()))
    namespace.run("ip", "link", "set", "tap_test", "up")
    nic = {
        "device": "tap_test",
        "name": "eth-test",
        "IPAddresses": [{"address": "172.16.0.3", "mask": "16"}, {"address": "fd00::3", "mask": "64"}],
        "hwAddr": "02:42:20:6e:03:01",
        "mtu": 1500,
    }
    done = sandbox.cli("kata-network", "add-iface", sandbox.id, "-", stdin=json.dumps(nic))
    assert (done.returncode, done.stderr) == (0, "")
    yield sandbox
    sandbox.cli("kata-network", "del-iface", sandbox.id, "-", stdin='{"name":"eth-test"}')


def test_contract_examples(wired: Any) -> None:
    """The contract's default route is printed as given, listed, and is what iproute2 in the guest shows."""
    done = _run(wired, "add-route", "default 172.16.0.1 eth-test")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        '[{"dest":"default","gateway":"172.16.0.1","device":"eth-test"}]\n',
        "",
    )
    listed = wired.cli("kata-network", "list-routes", wired.id).stdout
    assert listed == (
        '[{"dest":"default","gateway":"172.16.0.1","device":"eth-test"},'
        '{"dest":"172.16.0.0/16","gateway":"","device":"eth-test"},'
        '{"dest":"fd00::/64","gateway":"","device":"eth-test"}]\n'
    )
    assert json.loads(listed) == _oracle(wired)
    done = _run(wired, "del-route", "default 172.16.0.1 eth-test")
    assert (done.returncode, done.stdout) == (
        0,
        '[{"dest":"default","gateway":"172.16.0.1","device":"eth-test"}]\n',
    )
    assert _listed(wired) == _oracle(wired)


def test_both_families_and_lo(wired: Any) -> None:
    """Default routes of both families, masked host bits and a host route on lo agree with iproute2."""
    rows = (
        "default 172.16.0.1 eth-test",
        "default fd00::1 eth-test",
        "172.17.10.10/24 172.16.0.1 eth-test",
        "9.9.9.9 - lo",
    )
    assert _run(wired, "add-route", *rows).returncode == 0
    assert _listed(wired) == _oracle(wired)
    assert {"dest": "172.17.10.0/24", "gateway": "172.16.0.1", "device": "eth-test"} in _oracle(wired)
    assert _run(wired, "del-route", "default", "172.17.10.0/24", "9.9.9.9").returncode == 0
    assert _listed(wired) == _oracle(wired)


def test_packets_take_the_route(wired: Any, namespace: Any, unique: Any) -> None:
    """A host behind a router answers only once the guest has the route to it."""
    far = unique("far")
    namespace.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    namespace.run("ip", "netns", "add", far)
    try:
        namespace.run("ip", "link", "add", "toward", "type", "veth", "peer", "name", "eth0", "netns", far)
        namespace.run("ip", "address", "add", "192.168.77.1/24", "dev", "toward")
        namespace.run("ip", "link", "set", "toward", "up")
        for words in (
            "address add 192.168.77.2/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.77.1",
        ):
            namespace.run("ip", "-n", far, *words.split())
        assert wired.guest("ping", "-c", "1", "-W", "1", "192.168.77.2").returncode != 0
        assert _run(wired, "add-route", "192.168.77.0/24 172.16.0.1 eth-test").returncode == 0
        assert wired.guest("ping", "-c", "1", "-W", "5", "192.168.77.2").returncode == 0
        assert _run(wired, "del-route", "192.168.77.0/24").returncode == 0
        assert wired.guest("ping", "-c", "1", "-W", "1", "192.168.77.2").returncode != 0
    finally:
        namespace.run("ip", "netns", "delete", far)


def test_update_replaces_all_but_the_kernels_own(wired: Any) -> None:
    """update-routes prints the resulting list; ``null`` in leaves the connected routes, ``null`` out."""
    assert _run(wired, "add-route", "default 172.16.0.1 eth-test", "10.0.0.0/8 172.16.0.1 eth-test").returncode == 0
    done = _run(wired, "update-routes", "- 172.16.0.2 eth-test", "11.0.0.0/8 172.16.0.1 eth-test")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        (
            '[{"dest":"default","gateway":"172.16.0.2","device":"eth-test"},'
            '{"dest":"11.0.0.0/8","gateway":"172.16.0.1","device":"eth-test"}]\n'
        ),
        "",
    )
    assert _listed(wired) == _oracle(wired)
    done = wired.cli("kata-network", "update-routes", wired.id, "-", stdin="null")
    assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")
    assert _listed(wired) == _oracle(wired)


def test_two_thousand_routes(wired: Any) -> None:
    """2,000 routes in one list are added, listed and deleted, and iproute2 counts the same."""
    rows = [f"10.{number >> 8}.{number & 255}.0/24 172.16.0.1 eth-test" for number in range(2000)]
    assert _run(wired, "add-route", *rows).returncode == 0
    listed = _listed(wired)
    assert (len(listed), listed) == (2002, _oracle(wired))
    assert _run(wired, "del-route", *rows).returncode == 0
    assert _listed(wired) == _oracle(wired)


BAD = [
    (
        ("11.0.0.0/8 172.16.0.1 eth-test", "10.0.0.0/8 1.2.3.4 eth-test"),
        (
            "gateway '1.2.3.4' cannot be reached through device 'eth-test'; "
            "give one in a network of the device, or add a route to it first"
        ),
    ),
    (
        ("10.0.0.0/8 172.16.0.3 eth-test",),
        "gateway '172.16.0.3' is an address of the container itself; give the address of a neighbour",
    ),
    (
        ("10.0.0.0/8 - eth9",),
        "device 'eth9' does not exist in the container; list-ifaces shows the NICs it has",
    ),
    (
        ("172.16.0.0/16 172.16.0.1 eth-test",),
        "a route to '172.16.0.0/16' exists already ('172.16.0.0/16' on 'eth-test'); delete it first",
    ),
]


@pytest.mark.parametrize(("rows", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_refusals_change_nothing(wired: Any, rows: tuple[str, ...], sentence: str) -> None:
    """``null``, one line, exit status 1, and the guest's table as it was."""
    before = _oracle(wired)
    done = _run(wired, "add-route", *rows)
    assert (done.returncode, done.stdout, done.stderr) == (1, "null\n", f"kata-runtime: {sentence}\n")
    assert _oracle(wired) == before


def test_commands_agree_with_a_model(sandbox: Any, namespace: Any) -> None:
    """Random sequences of the commands succeed, fail and leave the guest's routes exactly as a plain table does."""
    for number in range(3):
        namespace.tap(f"tap{number}")
        addresses = (f"172.{16 + number}.0.3/16", f"fd0{number}::3/64") if number < 2 else ()
        document = nic(f"tap{number}", f"eth{number}", *addresses, mac=f"02:00:00:00:00:0{number}")
        assert sandbox.network("add-iface", document).stderr == ""
    assert sandbox.guest("ip", "link", "set", "eth2", "down").returncode == 0

    with sandbox.session() as session:

        @settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(commands=sequences())
        def check(commands: Any) -> None:
            update_routes(session, [])
            agree(session, commands)

        check()
        update_routes(session, [])
    for number in range(3):
        assert sandbox.network("del-iface", {"name": f"eth{number}"}).stdout == "null\n"


WRONG_INPUT = [
    ({"gateway": "172.16.0.1", "device": "eth-test"}, "the route lacks 'dest'"),
    ({"dest": "default", "device": "eth-test"}, "dest 'default' needs a gateway"),
    (
        {"dest": "10.0.0.0/8", "gateway": "fd00::1", "device": "eth-test"},
        "gateway fd00::1 and dest 10.0.0.0/8 are of different families; both must be IPv4 or both IPv6",
    ),
    (
        {"dest": "10.0.0.0/8", "device": "a" * 16},
        f"device is '{'a' * 16}'; a NIC name has 1-15 characters of A-Z a-z 0-9 _ - . and starts with a letter",
    ),
    ({"dest": "10.0.0.0/33", "device": "lo"}, "dest is '10.0.0.0/33'; its prefix length must be 0-32"),
    (
        {"dest": "300.1.1.1", "device": "lo"},
        "dest is '300.1.1.1'; it must be an address, address/prefix length, or 'default'",
    ),
    ({"dest": ["10.0.0.0/8"], "device": "lo"}, "dest is a list; it must be a string"),
    ([], "the list of routes is empty; give at least one route"),
    ({"dest": "10.0.0.0/8"}, "the route lacks 'device'"),
]


@pytest.mark.parametrize(("document", "sentence"), WRONG_INPUT, ids=[sentence for _, sentence in WRONG_INPUT])
def test_wrong_input_changes_nothing(wired: Any, document: object, sentence: str) -> None:
    """Values that no route can have are refused in one line before anything is touched."""
    before = _oracle(wired)
    done = wired.network("add-route", document)
    assert (done.returncode, done.stdout, done.stderr) == (1, "null\n", f"kata-runtime: {sentence}\n")
    assert _oracle(wired) == before


def test_nic_just_deleted(wired: Any) -> None:
    """A NIC that is gone takes no route, and its routes are gone with it."""
    assert _run(wired, "add-route", "10.0.0.0/8 172.16.0.1 eth-test").returncode == 0
    assert wired.network("del-iface", {"name": "eth-test"}).stdout == "null\n"
    done = _run(wired, "add-route", "10.0.0.0/8 172.16.0.1 eth-test")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "null\n",
        "kata-runtime: device 'eth-test' does not exist in the container; list-ifaces shows the NICs it has\n",
    )
    assert _listed_or_none(wired) is None


def _listed_or_none(sandbox: Any) -> object:
    return json.loads(sandbox.cli("kata-network", "list-routes", sandbox.id).stdout)


def test_route_through_a_nic_that_is_down(wired: Any) -> None:
    """A NIC set down inside the container takes no route."""
    wired.guest("ip", "link", "set", "eth-test", "down")
    done = _run(wired, "add-route", "10.0.0.0/8 - eth-test")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "null\n",
        "kata-runtime: device 'eth-test' is down in the container; set it up first\n",
    )
    wired.guest("ip", "link", "set", "eth-test", "up")
