"""NICs of a real guest: added, listed, deleted, and crossed by packets."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.system.conftest import Namespace, Runtime, Sandbox, network_namespace, nic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _outcome(done: object) -> tuple[object, ...]:
    return tuple(getattr(done, name) for name in ("returncode", "stdout", "stderr"))


def _remove(sandbox: Sandbox, name: str) -> None:
    assert _outcome(sandbox.network("del-iface", {"name": name})) == (0, "null\n", "")


def _pings(namespace: Namespace, address: str) -> bool:
    return namespace.attempt("ping", "-n", "-c", "1", "-W", "5", address).returncode == 0


def test_contract_example(sandbox: Sandbox, namespace: Namespace) -> None:
    """Add, list and delete print the contract's lines, and packets pass from add to delete only."""
    namespace.tap("tap_test", "172.16.0.1/16")
    added = sandbox.network("add-iface", nic("tap_test", "eth-test", "172.16.0.3/16"))
    assert _outcome(added) == (
        0,
        (
            '{"device":"tap_test","name":"eth-test","IPAddresses":[{"Family":2,"Address":"172.16.0.3","Mask":"16"}],'
            '"mtu":1500,"hwAddr":"02:42:20:6e:03:01","pciAddr":"01.0/00"}\n'
        ),
        "",
    )
    assert _outcome(sandbox.network("list-ifaces")) == (
        0,
        '[{"name":"eth-test","mac":"02:42:20:6e:03:01","ip":["172.16.0.3/16"],"mtu":1500}]\n',
        "",
    )
    route = sandbox.guest("ip", "route", "show", "dev", "eth-test").stdout.strip()
    assert route == "172.16.0.0/16 proto kernel scope link src 172.16.0.3"
    assert _pings(namespace, "172.16.0.3")
    _remove(sandbox, "eth-test")
    assert _outcome(sandbox.network("list-ifaces")) == (0, "null\n", "")
    assert "eth-test" not in sandbox.guest("ip", "link").stdout
    assert "tap_test" in namespace.run("ip", "link").stdout


def test_every_mix_of_addresses(sandbox: Sandbox, namespace: Namespace) -> None:
    """None, IPv4, IPv6, both and several addresses are what the guest has, and each answers."""
    mixes = {
        "none": (),
        "four": ("10.1.0.3/24",),
        "six": ("fd01::3/64",),
        "both": ("10.2.0.3/24", "fd02::3/64"),
        "many": ("10.3.0.3/24", "10.3.1.3/24", "fd03::3/64", "fd03:1::3/64"),
    }
    for number, (name, addresses) in enumerate(mixes.items()):
        own = [address.replace("3/", "1/") for address in addresses]
        namespace.tap(f"tap-{name}", *own)
        mac = f"02:00:00:00:00:{number:02x}"
        assert sandbox.network("add-iface", nic(f"tap-{name}", name, *addresses, mac=mac)).stderr == ""
    listed = json.loads(sandbox.network("list-ifaces").stdout)
    assert [(row["name"], tuple(row["ip"])) for row in listed] == list(mixes.items())
    for addresses in mixes.values():
        for address in addresses:
            assert _pings(namespace, address.partition("/")[0]), address
    for name in mixes:
        _remove(sandbox, name)


def test_order_and_second_life_of_a_name(sandbox: Sandbox, namespace: Namespace) -> None:
    """The list keeps the order of addition; a name, MAC, TAP and root port can be used again."""
    names = ["c", "a", "b"]
    for number, name in enumerate(names):
        namespace.tap(f"tap{name}")
        sandbox.network("add-iface", nic(f"tap{name}", name, mac=f"02:00:00:00:00:{number:02x}"))
    _remove(sandbox, "a")
    again = sandbox.network("add-iface", nic("tapa", "a", "10.0.0.3/24", mac="02:00:00:00:00:01"))
    assert json.loads(again.stdout)["pciAddr"] == "01.1/00"
    listed = json.loads(sandbox.network("list-ifaces").stdout)
    assert [row["name"] for row in listed] == ["c", "b", "a"]
    for name in names:
        _remove(sandbox, name)


def test_as_many_as_there_is_room_for(sandbox: Sandbox, namespace: Namespace) -> None:
    """Thirty commands at once add thirty NICs that carry packets; two more fit, the 33rd is refused."""
    for number in range(33):
        namespace.tap(f"tap{number}", f"10.9.{number}.1/24")

    def add(number: int) -> tuple[object, ...]:
        document = nic(f"tap{number}", f"e{number}", f"10.9.{number}.3/24", mac=f"02:00:00:00:00:{number:02x}")
        done = sandbox.network("add-iface", document)
        # On a busy host one can wait for the others for more than a second, and says so.
        lines = [line for line in done.stderr.splitlines(keepends=True) if "waiting for container" not in line]
        return done.returncode, "".join(lines)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, range(30))) == [(0, "")] * 30
    assert [add(30), add(31)] == [(0, ""), (0, "")]
    before = sandbox.snapshot()
    assert add(32) == (
        1,
        (
            "kata-runtime: the container has 32 NICs, and its machine has no room for another; "
            "delete one, or start it with a larger default_root_ports (32 at most)\n"
        ),
    )
    assert sandbox.snapshot() == before
    with ThreadPoolExecutor(8) as pool:
        reached = list(pool.map(lambda number: _pings(namespace, f"10.9.{number}.3"), range(32)))
    assert reached == [True] * 32
    listed = json.loads(sandbox.network("list-ifaces").stdout)
    assert sorted(row["name"] for row in listed) == sorted(f"e{number}" for number in range(32))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _remove(sandbox, f"e{number}"), range(32)))


def test_mtu_end_to_end(sandbox: Sandbox, namespace: Namespace) -> None:
    """A packet of exactly the MTU crosses unfragmented, one of a byte more does not."""
    for mtu in (1280, 1500, 9000, 9600):
        namespace.tap("tapm", "10.0.0.1/24", mtu=9600)
        sandbox.network("add-iface", nic("tapm", "big", "10.0.0.3/24", mtu=mtu))
        assert json.loads(sandbox.network("list-ifaces").stdout)[0]["mtu"] == mtu

        def crosses(size: int) -> int:
            ping = ("ping", "-n", "-c", "1", "-W", "3", "-M", "do", "-s", str(size - 28), "10.0.0.1")
            return sandbox.guest(*ping).returncode

        assert (crosses(mtu), crosses(mtu + 1)) == (0, 1), mtu
        _remove(sandbox, "big")
        namespace.run("ip", "link", "delete", "tapm")


def test_tap_is_looked_for_where_the_command_runs(
    sandbox: Sandbox, namespace: Namespace, runtime: Runtime, unique: Callable[[str], str]
) -> None:
    """A TAP of one namespace cannot be added from another, and can from its own."""
    with network_namespace(unique("other")) as other:
        other.tap("tap-there", "10.0.0.1/24")
        document = nic("tap-there", "e0", "10.0.0.3/24")
        done = sandbox.network("add-iface", document)
        assert _outcome(done) == (
            1,
            "null\n",
            (
                "kata-runtime: there is no interface 'tap-there' in this network namespace; "
                "create it with 'ip tuntap add tap-there mode tap'\n"
            ),
        )
        runtime.namespace = other
        assert sandbox.network("add-iface", document).stderr == ""
        assert _pings(other, "10.0.0.3")
        runtime.namespace = namespace
        _remove(sandbox, "e0")


def test_file_and_prefix(sandbox: Sandbox, namespace: Namespace, tmp_path: Path) -> None:
    """Input comes from a file as well, and a beginning of the ID is enough."""
    namespace.tap("tapf")
    path = tmp_path / "nic.json"
    path.write_text(json.dumps(nic("tapf", "from-file")))
    short = sandbox.id[:-1]
    assert sandbox.cli("kata-network", "add-iface", short, str(path)).stderr == ""
    assert json.loads(sandbox.cli("kata-network", "list-ifaces", short).stdout)[0]["name"] == "from-file"
    assert _outcome(sandbox.cli("kata-network", "del-iface", short, str(path))) == (0, "null\n", "")
    assert path.exists()


def test_kernel_bridge(sandbox: Sandbox, namespace: Namespace) -> None:
    """Two NICs of the container on a bridge of the host both reach the bridge's address."""
    namespace.run("ip", "link", "add", "br0", "type", "bridge")
    namespace.run("ip", "address", "add", "10.0.0.1/24", "dev", "br0")
    namespace.run("ip", "link", "set", "br0", "up")
    for number in (2, 3):
        namespace.tap(f"tap{number}")
        namespace.run("ip", "link", "set", f"tap{number}", "master", "br0")
        document = nic(f"tap{number}", f"e{number}", f"10.0.0.{number}/24", mac=f"02:00:00:00:00:0{number}")
        assert sandbox.network("add-iface", document).stderr == ""
    assert [_pings(namespace, f"10.0.0.{number}") for number in (2, 3)] == [True, True]
    for number in (2, 3):
        _remove(sandbox, f"e{number}")
