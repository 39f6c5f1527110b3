"""kata-network show: the whole tree, document and graph of fixed data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.unit.cli.topologies import HOSTILE, TOPOLOGY

from kata_runtime.cli import topology_dot, topology_tree
from kata_runtime.cli.network_json import compact
from kata_runtime.cli.topology_json import document
from kata_runtime.errors import HostError
from kata_runtime.netlink.link_details import Counters
from kata_runtime.network.host_devices import Bridge, HostLink, HostSide
from kata_runtime.network.topology import Rates, rates

_TREE = r"""container web · KVM, 2 vCPUs · pid 4711
├── NIC eth-test · 02:42:20:6e:03:01 · mtu 1500 · up · pci 01.0/00
│   ├── address 172.16.0.3/16
│   ├── address fd00::3/64
│   ├── traffic  ↓ 1.2 kB/s · 15.0 kB in all · 7 dropped  ↑ 2.4 MB/s · 2.5 MB in all · 3 errors
│   └── TAP tap_test · mtu 1500 · up
│       └── port of bridge br0 · up
│           ├── device eno1 · up, no carrier
│           └── veth veth1 · down
├── NIC eth\x1b[31m"\n]\n<b> · 02:42:20:6e:03:02 · mtu 9000 · up, no carrier · 4 queue pairs · pci 01.1/00
│   ├── traffic  ↓ 0 bytes in all  ↑ 0 bytes in all
│   └── vhost-user vhu0 · /run/vhu0.sock
│       └── port of Open vSwitch br-int · up · datapath netdev · VLAN 42 · could not open
├── NIC eth0 · 02:42:20:6e:03:03 · mtu 1450 · down · pci 01.2/00
│   ├── address 10.88.0.2/16
│   ├── traffic  ↓ 0 bytes in all  ↑ 0 bytes in all
│   └── veth eth0 · mtu 1450 · up · in /run/netns/pod
│       └── peer veth9 · mtu 1450 · up
│           └── port of bridge cni0 · down
├── NIC lost · 02:42:20:6e:03:04 · missing in the guest · pci 02.0/00
│   └── device tap_gone · there is no interface 'tap_gone' any more
└── routes
    ├── default via 172.16.0.1 dev eth-test
    └── 172.16.0.0/16 dev eth\x1b[31m"\n]\n<b>
"""


def test_tree() -> None:
    """The tree shows everything, and names from a guest neither control the terminal nor are markup."""
    assert topology_tree.drawn([TOPOLOGY]) == _TREE


def test_no_container() -> None:
    """Without a running container it says so."""
    assert topology_tree.drawn([]) == "no container runs\n"


_PSEUDO_TERMINAL = """
import os, pty, sys
sys.path[:0] = sys.argv[1:3]
sys.argv[1:] = []
from kata_runtime.cli.topology_tree import drawn
from tests.unit.cli.topologies import TOPOLOGY
pid, master = pty.fork()
if pid == 0:
    os.write(1, drawn([TOPOLOGY]).encode())
    os._exit(0)
try:
    while part := os.read(master, 65536):
        os.write(1, part)
except OSError:
    os.waitpid(pid, 0)
"""


@pytest.mark.parametrize(
    ("more", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "no-colour", "dumb"],
)
def test_colour(more: dict[str, str], coloured: bool) -> None:
    """Colour is only on a terminal that has it, and not with NO_COLOR."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "150", **more}
    argv = [sys.executable, "-c", _PSEUDO_TERMINAL, str(root / "src"), str(root)]
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=True)
    # Green and cyan: 32 and 36 (ECMA-48, SGR).
    assert (b"\x1b[32m" in done.stdout or b"36m" in done.stdout) == coloured, done.stdout


def test_document() -> None:
    """The JSON document holds everything of the first NIC; its text can be read back."""
    shown = json.loads(compact([document(TOPOLOGY)]))
    nics = shown[0].pop("nics")
    assert shown == [
        {
            "id": "web", "pid": 4711, "accelerator": "kvm", "vcpus": 2,
            "routes": [
                {"dest": "default", "gateway": "172.16.0.1", "device": "eth-test"},
                {"dest": "172.16.0.0/16", "gateway": "", "device": HOSTILE},
            ],
        }
    ]  # fmt: skip
    assert nics[0] == {
        "name": "eth-test", "mac": "02:42:20:6e:03:01", "pciAddr": "01.0/00", "queues": 0, "source": "add-iface",
        "guest": {
            "name": "eth-test", "mac": "02:42:20:6e:03:01", "mtu": 1500, "up": True, "carrier": True,
            "addresses": ["172.16.0.3/16", "fd00::3/64", "fe80::1/64"],
            "received": {"bytes": 15000, "packets": 10, "errors": 0, "dropped": 7},
            "sent": {"bytes": 2500000, "packets": 20, "errors": 3, "dropped": 0},
        },
        "rates": {"receivedBytes": 1200, "receivedPackets": 10, "sentBytes": 2400000, "sentPackets": 20},
        "host": {
            "kind": "tap", "device": "tap_test", "vhostUserSocket": "", "namespace": "",
            "link": {"name": "tap_test", "kind": "tun", "mtu": 1500, "up": True, "carrier": True},
            "missing": "", "peer": None,
            "bridge": {
                "name": "br0", "kind": "bridge", "up": True, "datapath": "", "tag": 0, "error": "",
                "ports": [
                    {"name": "eno1", "kind": "", "mtu": 1500, "up": True, "carrier": False},
                    {"name": "veth1", "kind": "veth", "mtu": 1500, "up": False, "carrier": False},
                ],
            },
        },
    }  # fmt: skip
    assert [nic["host"]["peer"] and nic["host"]["peer"]["name"] for nic in nics] == [None, None, "veth9", None]
    assert [nic["guest"] is None for nic in nics] == [False, False, False, True]


def test_graph() -> None:
    """The graph connects NIC, device, peer and bridge; a guest's name stays inside its string."""
    lines = topology_dot.dot([TOPOLOGY]).splitlines()
    nodes = {
        line.split()[0]: line.partition("label=")[2].partition(", fillcolor")[0] for line in lines if "label=" in line
    }
    edges = [line.strip().rstrip(";") for line in lines if "->" in line]
    assert nodes["n0"] == (
        r'"eth-test\n02:42:20:6e:03:01\n172.16.0.3/16\nfd00::3/64\nmtu 1500, up\n1.2 kB/s in, 2.4 MB/s out"'
    )
    assert nodes["n1"] == r'"eth\\x1b[31m\"\\n]\\n<b>\n02:42:20:6e:03:02\nmtu 9000, up"'
    named = [tuple(nodes[end].strip('"').partition("\\n")[0] for end in edge.split(" -> ")) for edge in edges]
    assert named == [
        ("eth-test", "tap_test"), ("tap_test", "br0"),
        ("eth\\\\x1b[31m\\\"\\", "vhu0"), ("vhu0", "br-int"),
        ("eth0", "eth0"), ("eth0", "veth9"), ("veth9", "cni0"), ("lost", "tap_gone"),
        ("br0", "eno1"), ("br0", "veth1"),
    ]  # fmt: skip


def test_two_containers_on_one_bridge() -> None:
    """The TAP of each container is before the bridge that they share, and only ports of others are behind it."""
    nic = TOPOLOGY.nics[0]
    taps = [HostLink(f"tap{number}", "tun", 1500, True, True) for number in range(2)]
    uplink = HostLink("eno1", "", 1500, True, False)
    both = [
        TOPOLOGY._replace(
            nics=(nic._replace(host=HostSide(tap, bridge=Bridge("br0", "bridge", True, (other, uplink)))),), routes=()
        )
        for tap, other in (taps, taps[::-1])
    ]
    lines = topology_dot.dot(both).splitlines()
    nodes = {line.split()[0]: line.partition('label="')[2].partition("\\n")[0] for line in lines if "label=" in line}
    edges = [line.strip().rstrip(";").split(" -> ") for line in lines if "->" in line]
    assert [tuple(nodes[end] for end in edge) for edge in edges] == [
        ("eth-test", "tap0"), ("tap0", "br0"), ("eth-test", "tap1"), ("tap1", "br0"), ("br0", "eno1"),
    ]  # fmt: skip


def test_picture() -> None:
    """Graphviz draws the graph as well-formed XML in which the hostile name is text."""
    root = ET.fromstring(topology_dot.svg(topology_dot.dot([TOPOLOGY])))
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert [text for text in texts if text and "31m" in text] == [
        'eth\\x1b[31m"\\n]\\n<b>',
        '172.16.0.0/16 dev eth\\x1b[31m"\\n]\\n<b>',
    ]


def test_no_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Graphviz the error says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError) as caught:
        topology_dot.svg("digraph {}")
    assert str(caught.value) == "--format svg needs Graphviz, which is not installed; apt-get install graphviz"


def test_rates() -> None:
    """Rates are differences over time; none where counters went back or no time passed."""
    before, after = Counters(1, 2, 100, 200), Counters(3, 6, 300, 1200)
    assert rates(before, after, 2.0) == Rates(100.0, 500.0, 1.0, 2.0)
    assert [rates(after, before, 2.0), rates(before, after, 0.0)] == [None, None]
