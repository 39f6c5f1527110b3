"""Adding and deleting again and again leaves nothing in QEMU."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from ctypes import CDLL
from typing import TYPE_CHECKING

import pytest
from tests.system.vmm.conftest import qemu_state, settled_state
from tests.unit.typed_addresses import mac

from kata_runtime.network.interfaces import add_interface, delete_interface
from kata_runtime.network.requests import NicRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Sandbox

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_ROUNDS = 100


@contextmanager
def _inside(namespace: Namespace) -> Iterator[None]:
    """This thread in the network namespace."""
    libc = CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.setns(there, _CLONE_NEWNET) == 0
        yield
        assert libc.setns(before, _CLONE_NEWNET) == 0
    finally:
        os.close(before)
        os.close(there)


@pytest.mark.parametrize(("queues", "rounds"), [(0, _ROUNDS // 2), (5, _ROUNDS // 2)])
def test_a_hundred_rounds(queues: int, rounds: int, wide_sandbox: Sandbox, namespace: Namespace) -> None:
    """Rounds of add and delete, of one queue and of five: QEMU's descriptors and objects are as before."""
    namespace.tap("tap0", options=("multi_queue",) if queues else ())
    request = NicRequest("tap0", "eth0", (), mac("02:42:20:6e:03:01"), 1500, "", queues)
    before = qemu_state(wide_sandbox)
    places: Counter[str] = Counter()
    with _inside(namespace), wide_sandbox.session() as session:
        for _ in range(rounds):
            places[add_interface(session, request).pci_address] += 1
            delete_interface(session, "eth0")
    assert places == {"01.0/00": rounds}
    assert settled_state(wide_sandbox, before) == before
