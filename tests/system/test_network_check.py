"""kata-check --network on a real container whose network is broken in many ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import network_namespace, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Namespace, Runtime, Sandbox


@pytest.fixture
def gateway(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Namespace]:
    """A namespace for the gateway: in that of the bridge, the bridge would answer for it."""
    with network_namespace(unique("gw")) as made:
        yield made


@pytest.fixture
def plugged(sandbox: Sandbox, namespace: Namespace, gateway: Namespace) -> Iterator[Sandbox]:
    """A container with a NIC at a bridge, behind which a gateway answers."""
    namespace.tap("tap_c")
    script = f"""
    ip link add br_c type bridge
    ip link add port_c type veth peer name gate_c netns {gateway.name}
    ip link set tap_c master br_c
    ip link set port_c master br_c
    ip link set br_c up
    ip link set port_c up
    """
    namespace.run("sh", "-ec", script)
    gateway.run("ip", "address", "add", "172.16.0.1/16", "dev", "gate_c")
    gateway.run("ip", "link", "set", "gate_c", "up")
    added = sandbox.network("add-iface", nic("tap_c", "eth-c", "172.16.0.3/16"))
    assert added.returncode == 0, added.stderr
    route = {"dest": "default", "gateway": "172.16.0.1", "device": "eth-c"}
    assert sandbox.network("add-route", route).returncode == 0
    yield sandbox
    sandbox.network("del-iface", {"name": "eth-c"})


def _check(sandbox: Sandbox) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status, and what is not well."""
    done = sandbox.cli("kata-check", "--network", sandbox.id, "--format", "json")
    findings = json.loads(done.stdout)
    assert all(each["nic"] == "eth-c" for each in findings)
    assert [each["check"] for each in findings if bool(each["remedy"]) != (each["verdict"] != "ok")] == []
    return done.returncode, {
        each["check"]: (each["verdict"], each["value"]) for each in findings if each["verdict"] != "ok"
    }


def test_check(plugged: Sandbox, namespace: Namespace, gateway: Namespace) -> None:
    """A NIC that works passes; a narrow path, a duplicate address and a silent gateway do not."""
    done = plugged.cli("kata-check", "--network", plugged.id)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(maxsplit=3) for line in done.stdout.splitlines()] == [
        ["ok", "eth-c", "device", "tap_c is up"],
        ["ok", "eth-c", "QEMU", "holds tap_c"],
        ["ok", "eth-c", "bridge", "port of br_c"],
        ["ok", "eth-c", "guest", "eth-c is up"],
        ["ok", "eth-c", "mtu", "1500"],
        ["ok", "eth-c", "address", "no other host has 172.16.0.3"],
        ["ok", "eth-c", "gateway", "172.16.0.1 answers"],
        ["ok", "eth-c", "path", "mtu   1500 to 172.16.0.1"],
    ]
    # The far end takes small frames only.
    gateway.run("ip", "link", "set", "gate_c", "mtu", "1300")
    assert _check(plugged) == (1, {"path mtu": ("broken", "172.16.0.1 answers, but not to 1500 bytes")})
    # The gateway has the container's address, too, and so keeps its answers for itself.
    gateway.run("ip", "address", "add", "172.16.0.3/32", "dev", "gate_c")
    assert _check(plugged) == (
        1,
        {
            "address": ("broken", "another host on the segment has 172.16.0.3, too"),
            "gateway": ("broken", "172.16.0.1 does not answer"),
        },
    )
    gateway.run("ip", "address", "del", "172.16.0.3/32", "dev", "gate_c")
    gateway.run("ip", "link", "set", "gate_c", "down")
    namespace.run("ip", "link", "set", "port_c", "mtu", "1300")
    assert _check(plugged) == (
        1,
        {
            "gateway": ("broken", "172.16.0.1 does not answer"),
            "mtu": ("warning", "1500 in the guest, 1300 on the port port_c"),
        },
    )


def test_check_of_a_broken_device(plugged: Sandbox, namespace: Namespace) -> None:
    """A TAP that is down and left its bridge is reported with its remedies on standard error, and the check fails."""
    namespace.run("ip", "link", "set", "tap_c", "down", "nomaster")
    assert plugged.guest("ip", "link", "set", "eth-c", "down").returncode == 0
    done = plugged.cli("kata-check", "--network", plugged.id)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "kata-runtime: eth-c: device: ip link set tap_c up",
            "kata-runtime: eth-c: bridge: ip link set tap_c master BRIDGE, or give it an address to route from",
            "kata-runtime: eth-c: guest: have the container set it up: ip link set eth-c up",
            f"kata-runtime: container {plugged.id} has NICs that do not work: see eth-c",
        ],
    )


def test_no_nics(sandbox: Sandbox) -> None:
    """A container without NICs has nothing to be checked."""
    done = sandbox.cli("kata-check", "--network", sandbox.id)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"container {sandbox.id} has no NICs\n", "")
