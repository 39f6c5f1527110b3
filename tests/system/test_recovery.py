"""Commands that are killed at any step: the next command finds, and leaves, a consistent container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.killing.killed_step import network_command_is_killed

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

_ENOUGH = 40


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_addition_is_undone(sandbox: Sandbox, namespace: Namespace, moment: str) -> None:
    """Wherever add-iface is killed, the NIC is afterwards there whole or not at all, and can be added."""
    namespace.tap("tap0", "10.0.0.1/24")
    document = nic("tap0", "eth0", "10.0.0.3/24")
    before = sandbox.snapshot()
    steps = 0
    for step in range(1, _ENOUGH):
        killed = network_command_is_killed(sandbox, step, moment, "add-iface", document)
        listed = json.loads(sandbox.network("list-ifaces").stdout)
        if listed is not None:
            assert listed == [{"name": "eth0", "mac": "02:42:20:6e:03:01", "ip": ["10.0.0.3/24"], "mtu": 1500}]
            assert sandbox.network("del-iface", document).stdout == "null\n"
        sandbox.settle()
        assert sandbox.snapshot() == before
        if not killed:
            break
        steps += 1
    assert 8 <= steps < _ENOUGH - 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_deletion_is_completed(sandbox: Sandbox, namespace: Namespace, moment: str) -> None:
    """Wherever del-iface is killed, the next command finds the NIC gone, or still whole."""
    namespace.tap("tap0", "10.0.0.1/24")
    document = nic("tap0", "eth0", "10.0.0.3/24")
    before = sandbox.snapshot()
    steps = 0
    for step in range(1, _ENOUGH):
        assert sandbox.network("add-iface", document).stderr == ""
        killed = network_command_is_killed(sandbox, step, moment, "del-iface", document)
        if json.loads(sandbox.network("list-ifaces").stdout) is not None:
            assert namespace.attempt("ping", "-c", "1", "-W", "5", "10.0.0.3").returncode == 0
            assert sandbox.network("del-iface", document).stdout == "null\n"
        sandbox.settle()
        assert sandbox.snapshot() == before
        if not killed:
            break
        steps += 1
    assert 4 <= steps < _ENOUGH - 1
