"""Ports of a real Neutron as NICs of running containers on two hosts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lab.endpoint import endpoint
from lab.logical_switch import LogicalPort
from tests.system.neutron.conftest import add, address_of, attached
from tests.system.ovn.transfers import SILENCE_SECONDS, ask, serving, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.ovn_lab import Lab
    from tests.system.neutron.conftest import Tenant
    from tests.system.ovn.conftest import Side

_MIB = 20


def test_two_containers_talk(sides: list[Side], tenant: Tenant) -> None:
    """A NIC has all that Neutron says of its port, which is ACTIVE while it is there; TCP passes between hosts."""
    first, second = sides
    here, there = tenant.port("web"), tenant.port("db")
    done = add(first, "web")
    assert (done.returncode, done.stderr) == (0, "")
    added = json.loads(done.stdout)
    assert added == {
        "device": added["device"],
        "name": "eth0",
        "IPAddresses": [{"Family": 2, "Address": address_of(here), "Mask": "24"}],
        "mtu": tenant.network["mtu"],
        "hwAddr": here["mac_address"],
        "offload": False,
        "pciAddr": "01.0/00",
        "port": here["id"],
    }
    with attached(second, there, "--name", "net0"):
        assert [tenant.binding(port) for port in (here, there)] == [
            (first.host.name, "ACTIVE"),
            (second.host.name, "ACTIVE"),
        ]
        assert json.loads(second.sandbox.network("list-ifaces").stdout) == [
            {"name": "net0", "mac": there["mac_address"], "ip": [f"{address_of(there)}/24"], "mtu": 1442}
        ]
        assert json.loads(second.sandbox.network("list-routes").stdout) == [
            {"dest": "default", "gateway": "10.20.0.1", "device": "net0"},
            {"dest": "10.20.0.0/24", "gateway": "", "device": "net0"},
            {"dest": "10.50.0.0/16", "gateway": "10.20.0.9", "device": "net0"},
        ]
        assert [row["port"] for row in json.loads(second.sandbox.network("list-ports").stdout)] == [there["id"]]
        assert transfer(first.guest, second.guest, address_of(there), _MIB)
    # By the name that it was added with.
    first.delete("web")
    assert [tenant.binding(port) for port in (here, there)] == [("", "DOWN"), ("", "DOWN")]
    assert [side.host.ports() for side in sides] == [[], []]


def test_dry_runs_change_nothing(sides: list[Side], tenant: Tenant) -> None:
    """add-port and del-port print their steps; the port's binding and the host stay as they were."""
    side = sides[0]
    port = tenant.port("planned")
    before = side.traces()
    planned = add(side, "planned", "--dry-run")
    assert (tenant.binding(port), side.traces()) == (("", "DOWN"), before)
    with attached(side, port) as added:
        before = side.traces()
        deletion = side.sandbox.cli("kata-network", "del-port", "--dry-run", side.sandbox.id, port["id"])
        assert (tenant.binding(port), side.traces()) == ((side.host.name, "ACTIVE"), before)
    tap, identity, mac, mtu = added["device"], port["id"], port["mac_address"], tenant.network["mtu"]
    assert [(done.returncode, done.stderr) for done in (planned, deletion)] == [(0, ""), (0, "")]
    assert json.loads(planned.stdout) == [
        f"neutron: bind port {identity} to host {side.host.name}",
        f"host: create TAP {tap}, mtu {mtu}, up",
        f"openvswitch: add port {tap} to bridge br-int, iface-id {identity}",
        f"ovn: wait until ovn-controller has installed port {identity}",
        f"qemu: netdev_add tap {tap}, 1 queue pair",
        f"qemu: device_add virtio-net-pci, mac {mac}, at 01.0/00",
        f"guest: name eth0, mtu {mtu}, address {address_of(port)}/24, up",
        "record: NIC eth0",
        "guest: route 10.50.0.0/16 via 10.20.0.9",
        "guest: route default via 10.20.0.1",
        f"neutron: wait until port {identity} is ACTIVE",
    ]
    assert json.loads(deletion.stdout) == [
        f"qemu: device_del of NIC eth0, mac {mac}",
        f"qemu: netdev_del of {tap}",
        f"host: TAP {tap} is deleted with its last descriptor",
        f"openvswitch: delete port {tap} from bridge br-int",
        f"neutron: unbind port {identity} from host {side.host.name}",
        "record: without NIC eth0",
    ]


def test_security_group(sides: list[Side], tenant: Tenant) -> None:
    """A security group lets in what a rule of it allows, and nothing else."""
    first, second = sides
    group = tenant.neutron.create("security_group", name="web")
    here, there = tenant.port("inside"), tenant.port("guarded", security_groups=[group["id"]])
    with (
        attached(first, here),
        attached(second, there),
        serving(second.guest, "allowed", 8080),
        serving(second.guest, "other", 8081),
    ):
        before = [ask(first.guest, address_of(there), port, seconds=SILENCE_SECONDS) for port in (8080, 8081)]
        tenant.neutron.create(
            "security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4",
            protocol="tcp", port_range_min=8080, port_range_max=8080,
        )  # fmt: skip
        after = [
            ask(first.guest, address_of(there), 8080),
            ask(first.guest, address_of(there), 8081, seconds=SILENCE_SECONDS),
        ]
    tenant.neutron.request("PUT", f"ports/{there['id']}", {"port": {"security_groups": []}})
    tenant.neutron.delete("security_group", group["id"])
    assert (before, after) == (["", ""], ["allowed", ""])


def test_port_moves(sides: list[Side], tenant: Tenant, unique: Callable[[str], str]) -> None:
    """A port of another host is refused by name, and taken over with --migrate, while a client tries again and again.

    The end of the NIC that it was before leaves it where it is.
    """
    first, second = sides
    client, moving = tenant.port("client"), tenant.port("moving")
    tenant.neutron.request("PUT", f"ports/{client['id']}", {"port": {"binding:host_id": first.host.name}})
    logical = LogicalPort(client["id"], client["mac_address"], address_of(client))
    address = address_of(moving)
    with (
        endpoint(first.host, unique("cl"), logical, tenant.network["mtu"]) as inside,
        ThreadPoolExecutor(1) as pool,
    ):
        with attached(second, moving):
            with serving(second.guest, "second"):
                assert ask(inside.prefix, address) == "second"
            refused = add(first, "moving")
            assert (refused.returncode, refused.stdout, refused.stderr) == (
                1,
                "null\n",
                (
                    f"kata-runtime: port 'moving' is bound to host '{second.host.name}', "
                    f"and this is '{first.host.name}'; --migrate takes it over\n"
                ),
            )
            asked = pool.submit(ask, inside.prefix, address, seconds=60)
            moved = add(first, "moving", "--migrate")
            assert (moved.returncode, moved.stderr) == (0, "")
            with serving(first.guest, "first"):
                assert asked.result() == "first"
        assert tenant.binding(moving) == (first.host.name, "ACTIVE")
        with serving(first.guest, "still here"):
            assert ask(inside.prefix, address) == "still here"
        first.delete(moving["id"])
    assert tenant.binding(moving) == ("", "DOWN")


def test_refusals_are_one_line(sides: list[Side], tenant: Tenant, lab: Lab) -> None:
    """Ports that are unknown, ambiguous or in use, and an unknown cloud, are named in one line; nothing has changed."""
    first, second = sides
    twins = [tenant.port("twin"), tenant.port("twin")]
    with attached(first, twins[0]) as added:
        before = [side.sandbox.snapshot() for side in sides], lab.central.nbctl("show")
        outcomes = [
            add(first, "nosuch"),
            add(first, "twin"),
            add(first, twins[0]["id"]),
            add(second, twins[1]["id"], "--cloud", "none"),
        ]
        assert ([side.sandbox.snapshot() for side in sides], lab.central.nbctl("show")) == before
    assert [(done.returncode, done.stdout) for done in outcomes] == [(1, "null\n")] * 4
    tap, port = added["device"], twins[0]["id"]
    assert [done.stderr for done in outcomes] == [
        "kata-runtime: Neutron of cloud 'lab' has no port 'nosuch'; give the UUID or the name of one\n",
        "kata-runtime: Neutron of cloud 'lab' has several ports of that name; give the UUID of one\n",
        (
            f"kata-runtime: port '{port}' is in use on this host by interface '{tap}' of container {first.sandbox.id}; "
            f"delete that first; 'ovs-vsctl del-port {tap}' if nothing else does\n"
        ),
        (
            "kata-runtime: Neutron of cloud 'none' failed: Cloud none was not found.; "
            "--cloud or OS_CLOUD names a cloud of clouds.yaml, or OS_* variables say where it is\n"
        ),
    ]
