"""NICs with several queues and of DPDK whose addition is killed at any step."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.killing.killed_step import network_command_is_killed
from tests.system.vmm.conftest import qemu_state, settled_state
from tests.system.vmm.test_vhost_user import back_end

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Namespace, Sandbox

_ENOUGH = 40


@pytest.mark.parametrize("kind", ["tap", "vhost-user"])
def test_killed_addition_is_undone(kind: str, wide_sandbox: Sandbox, namespace: Namespace, directory: Path) -> None:
    """Wherever add-iface is killed, the NIC is afterwards there whole or not at all, and QEMU keeps no descriptor."""
    document = nic("tap0", "eth0", "172.30.0.3/16", queues=2)
    before, state = wide_sandbox.snapshot(), qemu_state(wide_sandbox)
    steps = 0
    with ExitStack() as ends:
        if kind == "tap":
            namespace.tap("tap0", options=("multi_queue",))
        else:
            started = ends.enter_context(back_end(directory / "killed.sock", 2))
            document["vhostUserSocket"] = str(started.path)
        for step in range(1, _ENOUGH):
            killed = network_command_is_killed(wide_sandbox, step, "after", "add-iface", document)
            listed = json.loads(wide_sandbox.network("list-ifaces").stdout)
            if listed is not None:
                assert listed == [{"name": "eth0", "mac": "02:42:20:6e:03:01", "ip": ["172.30.0.3/16"], "mtu": 1500}]
                assert wide_sandbox.network("del-iface", document).stdout == "null\n"
            wide_sandbox.settle()
            assert wide_sandbox.snapshot() == before
            if not killed:
                break
            steps += 1
    assert 10 <= steps < _ENOUGH - 1
    assert settled_state(wide_sandbox, state) == state
