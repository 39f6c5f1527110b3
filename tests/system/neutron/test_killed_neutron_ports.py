"""add-port of a port of Neutron, killed at each step that touches record, Neutron, Open vSwitch or QEMU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.system.killing.killed_step import is_killed, killed_command
from tests.system.ovn.test_killed_ports import STEPS

if TYPE_CHECKING:
    from tests.system.neutron.conftest import Tenant
    from tests.system.ovn.conftest import Side

_STEPS = (
    *STEPS,
    "kata_runtime.network.clients.neutron:Neutron.bind",
    "kata_runtime.network.clients.neutron:Neutron.await_active",
)
_ENOUGH = 20


def test_killed_addition(sides: list[Side], tenant: Tenant) -> None:
    """Wherever add-port is killed, the port is afterwards a NIC and ACTIVE, or unbound and gone from everywhere."""
    side = sides[0]
    port = tenant.port("killed")
    before = side.traces()
    words = ("kata-network", "add-port", side.sandbox.id, port["id"])
    steps = 0
    for step in range(1, _ENOUGH):
        killed = is_killed(killed_command(side.sandbox.runtime.argv(*words), _STEPS, step, "after"))
        if json.loads(side.sandbox.network("list-ports").stdout) is not None:
            assert tenant.binding(port) == (side.host.name, "ACTIVE")
            side.delete(port["id"])
        side.sandbox.settle()
        assert (side.traces(), tenant.binding(port)) == (before, ("", "DOWN"))
        if not killed:
            break
        steps += 1
    assert 9 <= steps < _ENOUGH - 1
