"""Containers on two hosts in one network of OVN: what passes between them, and what happens when parts of it die."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lab.endpoint import endpoint
from lab.host import INTEGRATION_BRIDGE
from tests.system.ovn.transfers import ANSWER_SECONDS, SILENCE_SECONDS, ask, serving, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.logical_switch import LogicalPort, LogicalSwitch
    from lab.ovn_lab import Lab
    from tests.system.ovn.conftest import Side

_MIB = 40


def _pings(side: Side, address: str, *options: str) -> bool:
    # The first packet to another host waits for ARP of the tunnel's ends, and Open vSwitch drops it.
    done = side.sandbox.guest("ping", "-n", "-c", "1", "-w", "10", *options, address)
    return done.returncode == 0


def test_containers_talk(sides: list[Side], network: LogicalSwitch) -> None:
    """Hot-added ports on two hosts exchange full packets and 40 MiB over TCP; show and check find their bridge."""
    first, second = sides
    here, there = network.add_ports("talk-1", "talk-2")
    with first.attached(here, network.mtu), second.attached(there, network.mtu):
        assert _pings(first, there.address)
        full = str(network.mtu - 28)
        assert _pings(second, here.address, "-s", full, "-M", "do")
        assert transfer(first.guest, second.guest, there.address, _MIB)
        # The database is that of the configuration.
        shown = first.sandbox.cli("kata-network", "show", "--interval", "0", "--format", "json", first.sandbox.id)
        bridge = json.loads(shown.stdout)[0]["nics"][0]["host"]["bridge"]
        assert (bridge["name"], bridge["kind"], bridge["error"]) == (INTEGRATION_BRIDGE, "openvswitch", "")
        # The bridge's own interface is down, as everywhere, which concerns only this host itself.
        checked = first.sandbox.cli("kata-check", "--network", first.sandbox.id)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert f"bridge    port of {INTEGRATION_BRIDGE}\n" in checked.stdout


def test_offloads_end_at_a_switch_in_user_space(sides: list[Side], network: LogicalSwitch) -> None:
    """Between NICs that leave checksums to hardware pings pass but TCP does not; between others it does."""
    first, second = sides
    here, there = network.add_ports("offload-1", "offload-2")
    answers = []
    for offload in (True, False):
        with (
            first.plugged(here, network.mtu, offload=offload),
            second.plugged(there, network.mtu, offload=offload),
            serving(second.guest, "second"),
        ):
            assert _pings(first, there.address)
            seconds = SILENCE_SECONDS if offload else ANSWER_SECONDS
            answers.append(ask(first.guest, there.address, seconds=seconds))
    assert answers == ["", "second"]


def test_rule_drops(sides: list[Side], network: LogicalSwitch, lab: Lab) -> None:
    """A rule of OVN that drops one port of TCP leaves the others, and its deletion opens it again."""
    first, second = sides
    here, there = network.add_ports("rule-1", "rule-2")
    with (
        first.attached(here, network.mtu),
        second.attached(there, network.mtu),
        serving(second.guest, "open", 8080),
        serving(second.guest, "closed", 8081),
    ):
        both = [ask(first.guest, there.address, port) for port in (8080, 8081)]
        match = f'outport == "{there.name}" && tcp.dst == 8081'
        lab.central.nbctl("--wait=hv", "acl-add", network.name, "to-lport", "1000", match, "drop")
        dropped = [
            ask(first.guest, there.address, 8080),
            ask(first.guest, there.address, 8081, seconds=SILENCE_SECONDS),
        ]
        lab.central.nbctl("--wait=hv", "acl-del", network.name)
        again = [ask(first.guest, there.address, port) for port in (8080, 8081)]
    assert (both, dropped, again) == (["open", "closed"], ["open", ""], ["open", "closed"])


def test_port_moves(sides: list[Side], network: LogicalSwitch, unique: Callable[[str], str]) -> None:
    """A port goes from one host's container to the other's; a client that tries again and again reaches it there."""
    first, second = sides
    client, moving = network.add_ports("move-client", "move")
    with endpoint(first.host, unique("cl"), client, network.mtu) as inside, ThreadPoolExecutor(1) as pool:
        with second.attached(moving, network.mtu), serving(second.guest, "second"):
            assert ask(inside.prefix, moving.address) == "second"
        asked = pool.submit(ask, inside.prefix, moving.address, seconds=60)
        with first.attached(moving, network.mtu), serving(first.guest, "first"):
            assert asked.result() == "first"


def test_controller_dies(sides: list[Side], network: LogicalSwitch) -> None:
    """Without ovn-controller traffic continues; after its restart it installs what was plugged meanwhile."""
    first, second = sides
    here, there, late = network.add_ports("controller-1", "controller-2", "controller-3")
    with first.attached(here, network.mtu), second.attached(there, network.mtu), serving(second.guest, "second"):
        assert ask(first.guest, there.address) == "second"
        second.host.controller.end(signal.SIGKILL)
        try:
            assert ask(first.guest, there.address) == "second"
            second.namespace.tap("late")
            second.host.vsctl(
                "add-port", "br-int", "late", "--", "set", "Interface", "late", f"external_ids:iface-id={late.name}"
            )
            assert not second.host.is_installed("late")
        finally:
            second.host.controller.start()
        second.host.wait_installed("late")
        second.host.unplug("late")
        second.namespace.run("ip", "link", "delete", "late")
        assert ask(first.guest, there.address) == "second"


def test_switch_dies(sides: list[Side], network: LogicalSwitch) -> None:
    """ovs-vswitchd is killed and restarted: the containers keep their NICs, and traffic resumes."""
    first, second = sides
    here, there = network.add_ports("switch-1", "switch-2")
    with first.attached(here, network.mtu), second.attached(there, network.mtu), serving(second.guest, "second"):
        assert ask(first.guest, there.address) == "second"
        second.host.switch.end(signal.SIGKILL)
        try:
            assert ask(first.guest, there.address, seconds=1) == ""
        finally:
            second.host.restart_switch()
        assert ask(first.guest, there.address) == "second"
        assert transfer(second.guest, first.guest, here.address, 1)


def test_many_ports(sides: list[Side], network: LogicalSwitch, lab: Lab) -> None:
    """Thirty ports come and go on two hosts, and leave nothing in OVN, Open vSwitch, QEMU, guest or host."""

    def state() -> list[object]:
        bound = lab.central.sbctl("--format=json", "--columns=logical_port", "find", "Port_Binding", "chassis!=[]")
        links = [side.namespace.run("ip", "-o", "link").stdout.count("\n") for side in sides]
        return [
            json.loads(bound)["data"],
            links,
            *(side.host.ports() for side in sides),
            *(side.sandbox.snapshot() for side in sides),
        ]

    ports = network.add_ports(*(f"many-{number}" for number in range(30)))
    before = state()

    def come_and_go(side: Side, own: list[LogicalPort]) -> int:
        with ExitStack() as stack:
            for number, port in enumerate(own):
                stack.enter_context(side.attached(port, network.mtu, f"e{number}"))
            return len(json.loads(side.sandbox.network("list-ifaces").stdout))

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(come_and_go, sides, (ports[::2], ports[1::2])))
    lab.central.settle()
    assert (counts, state()) == ([15, 15], before)
