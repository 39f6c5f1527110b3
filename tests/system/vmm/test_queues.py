"""NICs with several queue pairs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.vmm.conftest import qemu_state, settled_state

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

_FLOWS = """
import socket
for number in range(64):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.sendto(b"flow", ("172.16.0.3", 20000 + number))
"""


def _channels(sandbox: Sandbox, name: str) -> tuple[int, int]:
    """What the guest's own ethtool says: queue pairs there are, queue pairs in use."""
    shown = sandbox.guest("ethtool", "-l", name).stdout
    most, used = re.findall(r"^Combined:\s+(\d+)$", shown, re.MULTILINE)
    return int(most), int(used)


def _queues_with_packets(sandbox: Sandbox, name: str) -> int:
    shown = sandbox.guest("ethtool", "-S", name).stdout
    return sum(int(count) > 0 for count in re.findall(r"rx_queue_\d+_packets: (\d+)", shown))


def _add(sandbox: Sandbox, namespace: Namespace, queues: int) -> str:
    """Add eth0 and send packets both ways through it; returns what the command printed to standard error."""
    namespace.tap("tap0", "172.16.0.1/16", options=("multi_queue",))
    asked = nic("tap0", "eth0", "172.16.0.3/16", queues=queues)
    done = sandbox.network("add-iface", asked)
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {
            "device": "tap0",
            "name": "eth0",
            "IPAddresses": [{"Family": 2, "Address": "172.16.0.3", "Mask": "16"}],
            "mtu": 1500,
            "hwAddr": "02:42:20:6e:03:01",
            "queues": queues,
            "pciAddr": "01.0/00",
        },
    )
    namespace.run("ping", "-q", "-c", "3", "-w", "20", "172.16.0.3")
    namespace.run("python3", "-c", _FLOWS)
    return done.stderr


def _delete(sandbox: Sandbox) -> None:
    done = sandbox.network("del-iface", {"name": "eth0"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")


@pytest.mark.parametrize(("queues", "used"), [(1, 1), (2, 2), (5, 2)])
def test_two_processors(queues: int, used: int, wide_sandbox: Sandbox, namespace: Namespace) -> None:
    """The guest uses as many pairs as it has vCPUs, ethtool in it agrees, and packets come in by each of them."""
    before = qemu_state(wide_sandbox)
    said = _add(wide_sandbox, namespace, queues)
    note = (
        "kata-runtime: NIC 'eth0' uses 2 of its 5 queue pairs, as the container has 2 vCPUs; "
        "start it with more default_vcpus for more\n"
    )
    assert said == (note if queues == 5 else "")
    assert _channels(wide_sandbox, "eth0") == (queues, used)
    assert _queues_with_packets(wide_sandbox, "eth0") == used
    _delete(wide_sandbox)
    assert settled_state(wide_sandbox, before) == before


def test_one_processor(sandbox: Sandbox, namespace: Namespace) -> None:
    """Five queues on one vCPU work: one pair carries the packets, the rest are free and go with the NIC."""
    before = qemu_state(sandbox)
    assert _add(sandbox, namespace, 5) == (
        "kata-runtime: NIC 'eth0' uses 1 of its 5 queue pairs, as the container has 1 vCPU; "
        "start it with more default_vcpus for more\n"
    )
    assert _channels(sandbox, "eth0") == (5, 1)
    _delete(sandbox)
    assert settled_state(sandbox, before) == before


def test_a_tap_with_one_queue(sandbox: Sandbox, namespace: Namespace) -> None:
    """More queues than the TAP has are refused with the command that makes such a TAP, and nothing changes."""
    namespace.tap("tap0")
    before = sandbox.snapshot()
    done = sandbox.network("add-iface", nic("tap0", "eth0", queues=2))
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "null\n",
        (
            "kata-runtime: the TAP 'tap0' has one queue, not 2; "
            "create it with 'ip tuntap add tap0 mode tap multi_queue vnet_hdr'\n"
        ),
    )
    assert sandbox.snapshot() == before


def test_more_queues_than_memory(wide_sandbox: Sandbox, namespace: Namespace) -> None:
    """NICs with 256 queue pairs are added until memory would run out; then one is refused, and the guest lives on."""
    before = qemu_state(wide_sandbox)
    for number in range(8):
        namespace.tap(f"tap{number}", options=("multi_queue",))
        done = wide_sandbox.network(
            "add-iface", nic(f"tap{number}", f"eth{number}", mac=f"02:42:20:6e:03:{number:02x}", queues=256)
        )
        if done.returncode:
            break
    assert (done.returncode, done.stdout, number > 0) == (1, "null\n", True)
    assert re.fullmatch(
        r"kata-runtime: 256 queue pairs need 160 MiB of the container's memory, and \d+ MiB are left; "
        r"ask for fewer, or start it with more default_memory\n",
        done.stderr,
    )
    for added in range(number):
        assert wide_sandbox.network("del-iface", {"name": f"eth{added}"}).stdout == "null\n"
    assert settled_state(wide_sandbox, before) == before


def test_a_tap_that_is_deleted(wide_sandbox: Sandbox, namespace: Namespace) -> None:
    """When the host has deleted the TAP of a NIC with several queues, the NIC goes, and QEMU does not end."""
    before = qemu_state(wide_sandbox)
    assert _add(wide_sandbox, namespace, 2) == ""
    namespace.run("ip", "link", "delete", "tap0")
    _delete(wide_sandbox)
    assert settled_state(wide_sandbox, before) == before
