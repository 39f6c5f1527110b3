"""Pods' namespaces as OVN-Kubernetes, or Multus for another network, leaves them: the other end of a veth is a port."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import network_namespace
from tests.system.ovn.transfers import ask, serving

from kata_runtime.network.namespace import Namespace as NetworkNamespace
from kata_runtime.network.reconcile import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.logical_switch import LogicalPort, LogicalSwitch
    from tests.system.conftest import Namespace
    from tests.system.ovn.conftest import Side


@contextmanager
def _pod(side: Side, port: LogicalPort, mtu: int, name: str) -> Iterator[Namespace]:
    """A namespace with eth0 as a plugin makes it for ``port``; the sandbox follows it as its shim would."""
    with ExitStack() as stack:
        pod = stack.enter_context(network_namespace(name))
        side.namespace.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", name)
        stack.callback(side.namespace.attempt, "ip", "link", "delete", "veth0")
        side.namespace.run("ip", "link", "set", "veth0", "mtu", str(mtu), "up")
        pod.run("ip", "link", "set", "eth0", "address", port.mac, "mtu", str(mtu), "up")
        pod.run("ip", "address", "add", f"{port.address}/16", "dev", "eth0")
        # A switch in user space reads what arrives there by a packet socket: unfinished checksums would stay so.
        pod.run("ethtool", "-K", "eth0", "tx", "off")
        side.host.plug("veth0", port.name, port.mac)
        stack.callback(side.host.unplug, "veth0")
        _follow(side, pod)
        try:
            yield pod
        finally:
            pod.run("ip", "link", "delete", "eth0")
            _follow(side, pod)


def _follow(side: Side, pod: Namespace) -> None:
    with NetworkNamespace(f"/run/netns/{pod.name}") as namespace, side.sandbox.session() as session:
        assert reconcile(session, namespace, creating=False) == []


def test_pod_of_ovn_kubernetes(sides: list[Side], network: LogicalSwitch, unique: Callable[[str], str]) -> None:
    """The veth's port is the container's: pods on two hosts talk over OVN, by packets of full size and by TCP."""
    first, second = sides
    here, there = network.add_ports("pod-1", "pod-2")
    with (
        _pod(first, here, network.mtu, unique("pod")),
        _pod(second, there, network.mtu, unique("pod")),
        serving(second.guest, "second"),
    ):
        full = str(network.mtu - 28)
        ping = first.sandbox.guest("ping", "-n", "-c", "1", "-w", "10", "-s", full, "-M", "do", there.address)
        assert ping.returncode == 0
        assert ask(first.guest, there.address) == "second"
        links = json.loads(first.sandbox.guest("ip", "-j", "link", "show", "eth0").stdout)
        assert (links[0]["address"], links[0]["mtu"]) == (here.mac, network.mtu)
        assert first.sandbox.network("list-ports").stdout == "null\n"
