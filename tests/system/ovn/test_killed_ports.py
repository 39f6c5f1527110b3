"""add-port and del-port of a port of OVN, killed at each step that touches record, Open vSwitch or QEMU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.killing.killed_step import is_killed, killed_command

if TYPE_CHECKING:
    from lab.logical_switch import LogicalSwitch
    from tests.system.ovn.conftest import Side

STEPS = (
    "kata_runtime.sandbox.session:Session.save",
    "kata_runtime.network.clients.ovsdb:Database._commit",
    "kata_runtime.network.clients.ovsdb:_InterfaceReady.wait",
    "kata_runtime.vmm.monitor:Monitor._execute",
)
_ENOUGH = 20


def test_killed_addition(sides: list[Side], network: LogicalSwitch) -> None:
    """Wherever add-port is killed, the port is afterwards there whole, or gone with the next command."""
    side = sides[0]
    (port,) = network.add_ports("killed")
    before = side.traces()
    steps = 0
    for step in range(1, _ENOUGH):
        words, document = side.addition(port, network.mtu)
        killed = is_killed(killed_command(side.sandbox.runtime.argv(*words), STEPS, step, "after"), document)
        if json.loads(side.sandbox.network("list-ports").stdout) is not None:
            assert side.host.interface(side.host.ports()[0])["ovn-installed"] == "true"
            side.delete(port.name)
        side.sandbox.settle()
        assert side.traces() == before
        if not killed:
            break
        steps += 1
    # The record twice, the transaction and its effect, getfd, netdev_add and device_add.
    assert 7 <= steps < _ENOUGH - 1


def test_killed_deletion(sides: list[Side], network: LogicalSwitch) -> None:
    """Wherever del-port is killed, the next command finds the port whole, or takes the rest of it away."""
    side = sides[0]
    (port,) = network.add_ports("killed")
    before = side.traces()
    steps = 0
    for step in range(1, _ENOUGH):
        assert side.add(port, network.mtu).stderr == ""
        words = ("kata-network", "del-port", side.sandbox.id, port.name)
        killed = is_killed(killed_command(side.sandbox.runtime.argv(*words), STEPS, step, "after"))
        if json.loads(side.sandbox.network("list-ports").stdout) is not None:
            side.delete(port.name)
        side.sandbox.settle()
        assert side.traces() == before
        if not killed:
            break
        steps += 1
    assert 4 <= steps < _ENOUGH - 1
