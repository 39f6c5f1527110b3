"""A container as balancer on one host, with servers on the other."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lab.endpoint import endpoint
from lab.logical_switch import LogicalSwitch
from tests.system.ovn.transfers import ask, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.ovn_lab import Lab
    from tests.system.ovn.conftest import Side

_REQUESTS = 10


def test_balanced_across_hosts(
    sides: list[Side], network: LogicalSwitch, lab: Lab, unique: Callable[[str], str]
) -> None:
    """A client's requests go through the container on one host to a container and a namespace on the other, in turn."""
    first, second = sides
    back = LogicalSwitch(lab.central, unique("back"), 8, network.mtu)
    client, front = network.add_ports("client", "front")
    balancer, container, namespace = back.add_ports("balancer", "server-1", "server-2")
    # It forwards packets of clients and of servers, with their addresses.
    back.allow_any_address(balancer)
    with ExitStack() as stack:
        stack.callback(back.delete)
        stack.enter_context(first.attached(front, network.mtu, "front"))
        stack.enter_context(first.attached(balancer, network.mtu, "back"))
        stack.enter_context(second.attached(container, network.mtu))
        asking = stack.enter_context(endpoint(second.host, unique("cl"), client, network.mtu))
        serving_namespace = stack.enter_context(endpoint(second.host, unique("sv"), namespace, network.mtu))
        serving_namespace.ip(f"route add default via {balancer.address}")
        route = {"dest": "default", "gateway": balancer.address, "device": "eth0"}
        assert second.sandbox.network("add-route", route).returncode == 0
        stack.enter_context(serving(second.guest, "container"))
        stack.enter_context(serving(serving_namespace.prefix, "namespace"))
        service = f"-t {front.address}:80"
        rules = [f"-A {service} -s rr", *(f"-a {service} -r {real.address}:8080" for real in (container, namespace))]
        for rule in rules:
            done = first.sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", rule, first.sandbox.id)
            assert (done.returncode, done.stderr) == (0, "")
        words = "kata-ipvs", "ipvsadm", "--parameters", f"-D {service}", first.sandbox.id
        stack.callback(lambda: first.sandbox.cli(*words))
        # Both ways have their tunnel's ARP and the balancer's after these.
        for real in (container, namespace):
            assert first.sandbox.guest("ping", "-c", "1", "-w", "10", real.address).returncode == 0
        assert ask(asking.prefix, front.address, 80) in ("container", "namespace")
        answers = Counter(ask(asking.prefix, front.address, 80) for _ in range(_REQUESTS))
    assert answers == {"container": _REQUESTS // 2, "namespace": _REQUESTS // 2}
