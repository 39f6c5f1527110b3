"""Ports whose command, controller or database ends half-way: nothing stays on the host, and what stays is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import booted

from kata_runtime.network.ports.port_changes import tap_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.logical_switch import LogicalPort, LogicalSwitch
    from tests.system.conftest import Sandbox
    from tests.system.ovn.conftest import Side

_SECONDS = 60


def _words(side: Side, sandbox: Sandbox, iface_id: str) -> tuple[str, ...]:
    options = ("--ovs", "br-int", "--ovsdb", side.host.ovsdb, "--iface-id", iface_id)
    return ("kata-network", "add-port", sandbox.id, "-", *options)


def _document(port: LogicalPort, mtu: int) -> str:
    addresses = [{"address": port.address, "mask": "16"}]
    return json.dumps({"name": "eth0", "IPAddresses": addresses, "hwAddr": port.mac, "mtu": mtu})


def _taps(side: Side) -> list[str]:
    links = json.loads(side.namespace.run("ip", "-j", "link", "show").stdout)
    return [link["ifname"] for link in links if link["ifname"].startswith("kt")]


def _add(side: Side, sandbox: Sandbox, port: LogicalPort, mtu: int) -> tuple[int, str]:
    done = sandbox.cli(*_words(side, sandbox, port.name), stdin=_document(port, mtu))
    return done.returncode, done.stderr


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_while_it_waits_for_ovn(sides: list[Side], network: LogicalSwitch, number: signal.Signals) -> None:
    """A command that is ended when the port is in Open vSwitch leaves neither port nor TAP nor NIC."""
    side = sides[0]
    port = network.add_ports("ended")[0]
    argv = side.sandbox.runtime.argv(*_words(side, side.sandbox, "unknown to OVN"))
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=null, stderr=null, text=True) as running:
        assert running.stdin is not None
        running.stdin.write(_document(port, network.mtu))
        running.stdin.close()
        tap = tap_name(str(side.sandbox.root), side.sandbox.id, "eth0")
        side.host.vsctl("wait-until", "Interface", tap, "ofport>0")
        running.send_signal(number)
        status = running.wait(_SECONDS)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    side.sandbox.settle()
    assert (side.host.ports(), _taps(side), side.sandbox.network("list-ports").stdout) == ([], [], "null\n")


def test_port_in_use(sides: list[Side], network: LogicalSwitch) -> None:
    """An iface-id that an interface of this host has is refused with its name and its container's."""
    side = sides[0]
    port = network.add_ports("used")[0]
    assert _add(side, side.sandbox, port, network.mtu) == (0, "")
    tap = side.host.ports()[0]
    assert _add(side, side.sandbox, port, network.mtu) == (
        1,
        (
            f"kata-runtime: port 'used' is in use on this host by interface '{tap}' of container {side.sandbox.id}; "
            f"delete that first; 'ovs-vsctl del-port {tap}' if nothing else does\n"
        ),
    )
    assert side.sandbox.cli("kata-network", "del-port", side.sandbox.id, "used").stdout == "null\n"


def test_deleted_without_the_database(sides: list[Side], network: LogicalSwitch) -> None:
    """del-port without Open vSwitch's answer removes NIC and TAP and names the rest, which the next port replaces.

    A dry run of that next port says so, and changes nothing.
    """
    side = sides[0]
    port = network.add_ports("orphan")[0]
    assert _add(side, side.sandbox, port, network.mtu) == (0, "")
    tap = side.host.ports()[0]
    with _stopped(side.host.database.pid):
        done = side.sandbox.cli("kata-network", "del-port", side.sandbox.id, "orphan")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "null\n",
        (
            f"kata-runtime: port '{tap}' stays in bridge 'br-int' of Open vSwitch: "
            f"the answer of Open vSwitch's database at '{side.host.ovsdb}' did not happen within 5 s; "
            f"'ovs-vsctl --if-exists del-port {tap}' deletes it\n"
        ),
    )
    assert (side.host.ports(), _taps(side)) == ([tap], [])
    side.host.vsctl("wait-until", "Interface", tap, "mtu=[]")
    before = side.traces()
    planned = side.sandbox.cli(
        *_words(side, side.sandbox, port.name), "--dry-run", stdin=_document(port, network.mtu + 1)
    )
    assert side.traces() == before
    assert (planned.returncode, json.loads(planned.stdout)) == (
        0,
        [
            f"openvswitch: delete port {tap}, whose NIC is gone",
            f"host: create TAP {tap}, mtu {network.mtu + 1}, up",
            f"openvswitch: add port {tap} to bridge br-int, iface-id orphan",
            "ovn: wait until ovn-controller has installed port orphan",
            f"qemu: netdev_add tap {tap}, 1 queue pair",
            f"qemu: device_add virtio-net-pci, mac {port.mac}, at 01.0/00",
            f"guest: name eth0, mtu {network.mtu + 1}, address {port.address}/16, up",
            "record: NIC eth0",
        ],
    )
    assert planned.stderr.startswith(
        f"kata-runtime: mtu {network.mtu + 1} is larger than the tunnels of this host carry: {network.mtu}, "
    )
    assert _add(side, side.sandbox, port, network.mtu) == (0, "")
    assert side.sandbox.cli("kata-network", "del-port", side.sandbox.id, "orphan").stderr == ""
    assert side.host.ports() == []


def test_gone_with_the_container(sides: list[Side], network: LogicalSwitch, unique: Callable[[str], str]) -> None:
    """delete --force of a container takes its port out of Open vSwitch."""
    side = sides[0]
    port = network.add_ports("gone")[0]
    with booted(side.sandbox.runtime, unique("gone")) as sandbox:
        assert _add(side, sandbox, port, network.mtu) == (0, "")
        assert len(side.host.ports()) == 1
        done = sandbox.cli("delete", "--force", sandbox.id)
        assert (done.returncode, done.stderr) == (0, "")
    assert (side.host.ports(), _taps(side)) == ([], [])


def test_no_database(sides: list[Side]) -> None:
    """A database that is not there, and a bridge that it has not, are named."""
    side = sides[0]
    words = ("kata-network", "add-port", side.sandbox.id, "-", "--ovs", "br9", "--ovsdb")
    document = json.dumps({"name": "eth0", "hwAddr": "02:42:20:6e:03:01", "mtu": 1400})
    assert side.sandbox.cli(*words, "unix:/nonexistent", stdin=document).stderr == (
        "kata-runtime: Open vSwitch's database at 'unix:/nonexistent' failed: Could not retrieve schema from "
        "unix:/nonexistent; is ovsdb-server running there? "
        "[network] ovsdb in the configuration, or --ovsdb, says where it is\n"
    )
    assert side.sandbox.cli(*words, side.host.ovsdb, stdin=document).stderr == (
        "kata-runtime: Open vSwitch has no bridge 'br9'; 'ovs-vsctl list-br' shows those it has; "
        "a Linux bridge is named with --bridge\n"
    )
