"""A sandbox on which much is done one after the other: nothing drifts. ``make long-life`` does it a thousand times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.hosts.rounds import Rounds

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

_ROUNDS = 15


def test_nothing_drifts(fresh_sandbox: Sandbox, namespace: Namespace) -> None:
    """Rounds of NICs and of virtual servers leave QEMU and agent their descriptors and buffers, and slots the same."""
    # A sandbox of its own: tests that kill commands with SIGKILL cost the shared one buffers.
    rounds = Rounds(fresh_sandbox)
    for action in (rounds.nic, rounds.servers):
        action()
    before = rounds.measure()
    places = {rounds.nic() for _ in range(_ROUNDS)}
    for _ in range(_ROUNDS):
        rounds.servers()
    after = rounds.measure()
    assert places == {"01.0/00"}
    assert (after.qemu_descriptors, after.agent_descriptors) == (before.qemu_descriptors, before.agent_descriptors)
    assert after.lost_buffers == before.lost_buffers == 0
    assert after.agent_kib < before.agent_kib + 4096
