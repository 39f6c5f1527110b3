"""Ports of a Linux bridge: TAPs that are made, plugged in and taken away by the commands themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import nic
from tests.system.killing.killed_step import network_command_is_killed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Completed, Namespace, Sandbox

_ENOUGH = 60


def _asked(**more: Any) -> dict[str, object]:
    document = nic("", "eth0", "10.0.0.3/24", mtu=1400, **more)
    del document["device"]
    return document


def _add(sandbox: Sandbox, document: dict[str, object], bridge: str = "br0") -> Completed:
    return sandbox.cli("kata-network", "add-port", sandbox.id, "-", "--bridge", bridge, stdin=json.dumps(document))


def _delete(sandbox: Sandbox, port: str) -> None:
    done = sandbox.cli("kata-network", "del-port", sandbox.id, port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")


def _links(namespace: Namespace) -> list[str]:
    return sorted(link["ifname"] for link in json.loads(namespace.run("ip", "-j", "link", "show").stdout))


@pytest.fixture
def bridged(namespace: Namespace) -> Iterator[Namespace]:
    """The namespace with a bridge of MTU 1500; nothing else may be there at the end."""
    namespace.run("ip", "link", "add", "br0", "type", "bridge")
    namespace.run("ip", "address", "add", "10.0.0.1/24", "dev", "br0")
    namespace.run("ip", "link", "set", "br0", "mtu", "1500", "up")
    before = _links(namespace)
    yield namespace
    assert _links(namespace) == before


def test_added_listed_and_deleted(sandbox: Sandbox, bridged: Namespace) -> None:
    """The TAP is made, silent and in the bridge, whose MTU stays; packets pass; with the port all of it goes."""
    before = sandbox.snapshot()
    done = _add(sandbox, _asked())
    added = json.loads(done.stdout)
    tap = added["device"]
    assert (done.returncode, done.stderr, added) == (
        0,
        "",
        {
            "device": tap,
            "name": "eth0",
            "IPAddresses": [{"Family": 2, "Address": "10.0.0.3", "Mask": "24"}],
            "mtu": 1400,
            "hwAddr": "02:42:20:6e:03:01",
            "pciAddr": "01.0/00",
            "port": tap,
        },
    )
    (link,) = json.loads(bridged.run("ip", "-j", "link", "show", tap).stdout)
    assert (link["master"], link["mtu"], len(tap), tap[:2]) == ("br0", 1500, 12, "kt")
    assert bridged.run("cat", f"/proc/sys/net/ipv6/conf/{tap}/disable_ipv6").stdout == "1\n"
    bridged.run("ping", "-c", "1", "-w", "20", "10.0.0.3")
    assert json.loads(sandbox.network("list-ports").stdout) == [
        {
            "port": tap, "name": "eth0", "device": tap, "kind": "bridge", "bridge": "br0",
            "mac": "02:42:20:6e:03:01", "ip": ["10.0.0.3/24"], "mtu": 1400,
        }
    ]  # fmt: skip
    assert [row["name"] for row in json.loads(sandbox.network("list-ifaces").stdout)] == ["eth0"]
    _delete(sandbox, tap)
    assert sandbox.network("list-ports").stdout == "null\n"
    assert sandbox.snapshot() == before


def test_dry_runs_change_nothing(sandbox: Sandbox, bridged: Namespace) -> None:
    """add-port and del-port print their steps, and host, machine, guest and record stay as they were."""
    before = sandbox.snapshot()
    planned = sandbox.cli(
        "kata-network", "add-port", "--dry-run", sandbox.id, "-", "--bridge", "br0", stdin=json.dumps(_asked(queues=2))
    )
    assert (sandbox.snapshot(), _links(bridged)) == (before, ["br0", "lo"])
    tap = json.loads(_add(sandbox, _asked(queues=2)).stdout)["device"]
    with_port = sandbox.snapshot()
    deletion = sandbox.cli("kata-network", "del-port", "--dry-run", sandbox.id, "eth0")
    assert (sandbox.snapshot(), _links(bridged)) == (with_port, sorted(["br0", "lo", tap]))
    _delete(sandbox, "eth0")
    assert [(done.returncode, done.stderr) for done in (planned, deletion)] == [(0, ""), (0, "")]
    assert json.loads(planned.stdout) == [
        f"host: create TAP {tap}, mtu 1500, up",
        f"bridge: add {tap} to bridge br0",
        f"qemu: netdev_add tap {tap}, 2 queue pairs",
        "qemu: device_add virtio-net-pci, mac 02:42:20:6e:03:01, at 01.0/00",
        "guest: name eth0, mtu 1400, address 10.0.0.3/24, up",
        "record: NIC eth0",
    ]
    assert json.loads(deletion.stdout) == [
        "qemu: device_del of NIC eth0, mac 02:42:20:6e:03:01",
        f"qemu: netdev_del of {tap}",
        f"host: TAP {tap} is deleted with its last descriptor",
        "record: without NIC eth0",
    ]


def test_by_the_nics_name_and_by_del_iface(sandbox: Sandbox, bridged: Namespace) -> None:
    """Each of the port's names deletes it, del-iface does, too, and with several queue pairs it is the same."""
    for delete in ("eth0", None):
        assert _add(sandbox, _asked(queues=2)).returncode == 0
        if delete is not None:
            _delete(sandbox, delete)
        else:
            assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
        assert _links(bridged) == ["br0", "lo"]


_REFUSED: list[tuple[dict[str, object], str, tuple[str, str]]] = [
    (
        {"mtu": 1501},
        "br0",
        (
            "mtu 1501 is larger than that of bridge 'br0', 1500: others on it would not get such packets",
            "ask for 1500 or less, or raise that of the bridge and of all its ports",
        ),
    ),
    (
        {},
        "br1",
        (
            "there is no bridge 'br1' in this network namespace",
            "create it with 'ip link add br1 type bridge', or name another",
        ),
    ),
    (
        {},
        "lo",
        ("the interface 'lo' is no Linux bridge, but a device", "a bridge of Open vSwitch is named with --ovs"),
    ),
    ({"device": "tap0"}, "br0", ("the NIC has 'device'", "leave it out: add-port makes the device")),
]


@pytest.mark.parametrize(("change", "bridge", "message"), _REFUSED)
def test_refused(
    sandbox: Sandbox, bridged: Namespace, change: dict[str, object], bridge: str, message: tuple[str, str]
) -> None:
    """What cannot be is refused in one line, and host, machine and guest are as they were."""
    before = sandbox.snapshot()
    done = _add(sandbox, {**_asked(), **change}, bridge)
    assert (done.returncode, done.stdout, done.stderr) == (1, "null\n", f"kata-runtime: {'; '.join(message)}\n")
    assert sandbox.snapshot() == before
    assert _links(bridged) == ["br0", "lo"]


def test_del_port_of_others(sandbox: Sandbox, namespace: Namespace) -> None:
    """A NIC of add-iface is no port, and neither is what does not exist."""
    namespace.tap("tap0")
    assert sandbox.network("add-iface", nic("tap0", "eth7")).stderr == ""
    lines = [sandbox.cli("kata-network", "del-port", sandbox.id, name).stderr for name in ("eth7", "eth8")]
    assert lines == [
        f"kata-runtime: NIC 'eth7' of container {sandbox.id} was added with add-iface; del-iface deletes it\n",
        f"kata-runtime: container {sandbox.id} has no port 'eth8'; list-ports shows those that can be deleted\n",
    ]
    assert sandbox.network("del-iface", {"name": "eth7"}).stdout == "null\n"


def test_gone_with_the_container(fresh_sandbox: Sandbox, bridged: Namespace) -> None:
    """delete --force of a running container, and the death of its VM, leave no TAP."""
    assert _add(fresh_sandbox, _asked()).returncode == 0
    assert len(_links(bridged)) == 3
    assert fresh_sandbox.cli("kill", fresh_sandbox.id, "KILL").returncode == 0
    assert _links(bridged) == ["br0", "lo"]
    done = fresh_sandbox.cli("delete", fresh_sandbox.id)
    assert (done.returncode, done.stderr) == (0, "")


def test_killed_addition_is_undone(sandbox: Sandbox, bridged: Namespace) -> None:
    """Wherever add-port is killed, the port is afterwards there whole or not at all, and can be added."""
    before = sandbox.snapshot()
    steps = 0
    for step in range(1, _ENOUGH):
        killed = network_command_is_killed(sandbox, step, "after", "add-port", _asked(), "--bridge", "br0")
        if json.loads(sandbox.network("list-ports").stdout) is not None:
            bridged.run("ping", "-c", "1", "-w", "20", "10.0.0.3")
            _delete(sandbox, "eth0")
        sandbox.settle()
        assert sandbox.snapshot() == before
        assert _links(bridged) == ["br0", "lo"]
        if not killed:
            break
        steps += 1
    assert 12 <= steps < _ENOUGH - 1
