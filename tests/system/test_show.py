"""What is plugged where, and virtual servers as they work, of a real container."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from tests.system.conftest import network_namespace, nic

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Namespace, Sandbox


def test_show(sandbox: Sandbox, namespace: Namespace) -> None:
    """The NIC is shown from the guest over TAP and bridge to the bridge's other port, with its live rate."""
    namespace.tap("tap_show")
    namespace.run("ip", "link", "add", "br_show", "type", "bridge")
    namespace.run("ip", "address", "add", "172.16.0.1/16", "dev", "br_show")
    namespace.run("ip", "link", "add", "va_show", "type", "veth", "peer", "name", "vb_show")
    for port in ("tap_show", "va_show"):
        namespace.run("ip", "link", "set", port, "master", "br_show")
    for link in ("br_show", "va_show", "vb_show"):
        namespace.run("ip", "link", "set", link, "up")
    added = sandbox.network("add-iface", nic("tap_show", "eth-show", "172.16.0.3/16"))
    assert added.returncode == 0, added.stderr
    try:
        _check(sandbox, namespace, json.loads(added.stdout)["pciAddr"])
    finally:
        sandbox.network("del-iface", {"name": "eth-show"})


def _check(sandbox: Sandbox, namespace: Namespace, pci_address: str) -> None:
    shown = sandbox.cli("kata-network", "show", "--interval", "0", sandbox.id)
    assert (shown.returncode, shown.stderr) == (0, "")
    tree = re.sub(r"[\d.]+ (bytes|kB) in all", "N in all", shown.stdout)
    assert re.sub(r"pid \d+", "pid N", tree) == (
        f"container {sandbox.id} · TCG, 1 vCPU · pid N\n"
        f"├── NIC eth-show · 02:42:20:6e:03:01 · mtu 1500 · up · pci {pci_address}\n"
        "│   ├── address 172.16.0.3/16\n"
        "│   ├── traffic  ↓ N in all  ↑ N in all\n"
        "│   └── TAP tap_show · mtu 1500 · up\n"
        "│       └── port of bridge br_show · up\n"
        "│           └── veth va_show · up\n"
        "└── routes\n"
        "    └── 172.16.0.0/16 dev eth-show\n"
    )
    namespace.run("ping", "-c", "1", "-W", "20", "172.16.0.3")
    first = _nic(sandbox)
    assert first["host"]["bridge"]["name"] == "br_show"
    assert first["guest"]["received"]["packets"] != 0
    assert first["rates"] is not None
    picture = sandbox.cli("kata-network", "show", "--format", "svg", "--interval", "0")
    assert (picture.returncode, picture.stderr) == (0, "")
    texts = {element.text for element in ET.fromstring(picture.stdout).iter()}
    assert {"eth-show", "tap_show", "br_show", "va_show"} <= texts
    lists = [
        sandbox.cli("kata-network", verb, "--format", "table", sandbox.id).stdout
        for verb in ("list-ifaces", "list-routes")
    ]
    assert [table.splitlines()[0].split() for table in lists] == [
        ["NAME", "MAC", "IP", "MTU"],
        ["DESTINATION", "GATEWAY", "DEVICE"],
    ]
    assert [table.splitlines()[2].split() for table in lists] == [
        ["eth-show", "02:42:20:6e:03:01", "172.16.0.3/16", "1500"],
        ["172.16.0.0/16", "eth-show"],
    ]


def _nic(sandbox: Sandbox) -> dict[str, dict[str, dict[str, object]]]:
    done = sandbox.cli("kata-network", "show", "--format", "json", "--interval", "0.2", sandbox.id)
    assert (done.returncode, done.stderr) == (0, "")
    (container,) = json.loads(done.stdout)
    (found,) = container["nics"]
    assert isinstance(found, dict)
    return found


_SIDES = """
import os, sys
from kata_runtime.address_types import MacAddress
from kata_runtime.network.host_devices import host_sides
from kata_runtime.sandbox.record import EndpointKind, NicRecord
path, mac = sys.argv[1], MacAddress(bytes([2, 0, 0, 0, 0, 1]))
found = os.stat(path)
nics = [
    NicRecord(
        "eth0", "eth0", mac, 1500, (), 0, kind=EndpointKind.REDIRECT,
        namespace=f"{found.st_dev}:{found.st_ino}", carried_from=path, interface=2,
    ),
    NicRecord("tap", "tap0", mac, 1500, (), 1, namespace=f"{found.st_dev}:{found.st_ino}"),
    NicRecord("gone", "tap9", mac, 1500, (), 2, namespace="1:2"),
]
for name, side in host_sides(nics, []).items():
    print(name, side.device and side.device.name, side.namespace == path, side.peer and side.peer.name,
          side.bridge and (side.bridge.name, [port.name for port in side.bridge.ports]), side.addressed, side.missing)
"""


def test_other_namespaces(namespace: Namespace, unique: Callable[[str], str]) -> None:
    """An engine's interface is followed over its veth to the bridge, and a TAP is found in its named namespace."""
    with network_namespace(unique("pod")) as pod:
        script = f"""
        ip link add cni0 type bridge
        ip address add 10.88.0.1/16 dev cni0
        ip link add veth9 type veth peer name eth0 netns {pod.name}
        ip link add other type veth peer name far
        ip link set veth9 master cni0
        ip link set other master cni0
        """
        namespace.run("sh", "-ec", script)
        pod.tap("tap0", "10.0.0.1/24")
        path = f"/run/netns/{pod.name}"
        shown = namespace.run(sys.executable, "-c", _SIDES, path)
    assert shown.stdout.splitlines() == [
        "eth0 eth0 True veth9 ('cni0', ['other']) ('cni0',) ",
        "tap tap0 True None None ('tap0',) ",
        "gone None False None None () its network namespace has no name on this host",
    ]


def test_show_without_container(sandbox: Sandbox) -> None:
    """An unknown container is one line of error and no result; a wrong format is a wrong command line."""
    unknown = sandbox.cli("kata-network", "show", "nosuch")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("kata-runtime: container 'nosuch' does not exist;")
    assert sandbox.cli("kata-network", "show", "--format", "png").returncode == 2


def test_top(sandbox: Sandbox) -> None:
    """Where output is no terminal, the table of virtual servers is printed once, in the order asked for."""
    rules = (
        "-A -t 10.0.0.1:80 -s wrr\n-a -t 10.0.0.1:80 -r 10.0.1.1:80 -m -w 2\n-a -t 10.0.0.1:80 -r 10.0.1.2:80 -m -w 9\n"
    )
    assert sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id, stdin=rules).returncode == 0
    try:
        done = sandbox.cli("kata-ipvs", "top", "--sort", "weight", sandbox.id)
    finally:
        sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-C", sandbox.id)
    assert (done.returncode, done.stderr) == (0, "")
    title, *rows = done.stdout.splitlines()
    assert re.sub(r"\d\d:\d\d:\d\d", "TIME", title) == (
        f"virtual servers of {sandbox.id} · TIME · 1 service, 2 servers · 0 active · 0 connections/s"
    )
    assert [row.split()[:4] for row in rows[3:]] == [
        ["TCP", "10.0.0.1:80", "wrr", "0"],
        ["→", "10.0.1.2:80", "Masq", "9"],
        ["→", "10.0.1.1:80", "Masq", "2"],
    ]
