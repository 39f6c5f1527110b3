"""What is done again and again to one sandbox, and what could drift meanwhile."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, NamedTuple

from tests.system.conftest import nic
from tests.system.serial_buffers import CONTROL_PORT, output_queue

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from tests.system.conftest import Completed, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
_RULES = "-A -t 10.9.9.9:80 -s rr\n" + "".join(f"-a -t 10.9.9.9:80 -r 10.9.8.{n}:80 -m\n" for n in range(1, 101))
_NO_RULES = "-A -t 10.9.9.9:80 -s wlc\n"
# VmRSS (proc(5)) of the agent, and how many descriptors it has.
_AGENT = """
pid=$(pgrep -f '[k]ata_runtime.guest' | head -n 1)
sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status
ls /proc/$pid/fd | wc -l
"""
_SETTLE_SECONDS = 0.5
_PAUSE_SECONDS = 0.02


class Measured(NamedTuple):
    """Resident memory in KiB, QEMU's without the guest's and translated code, and open descriptors.

    ``qemu_blocks`` of the guest's code are translated, of each of which QEMU keeps something outside of that code.
    ``lost_buffers`` of the guest's control port, which has 128, QEMU has taken and will not return.
    """

    qemu_kib: int
    qemu_blocks: int
    qemu_descriptors: int
    agent_kib: int
    agent_descriptors: int
    lost_buffers: int


class Rounds:
    """Rounds of commands on a sandbox, in whose commands' namespace there is a TAP of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        namespace = sandbox.runtime.namespace
        assert namespace is not None
        namespace.tap("tap0", "10.0.0.1/24")
        self._sandbox = sandbox
        self._pid = load_record(str(sandbox.directory)).pid

    def nic(self) -> str:
        """Add a NIC and delete it; its PCI address."""
        added = _succeeded(self._sandbox.network("add-iface", _NIC))
        assert _succeeded(self._sandbox.network("del-iface", _NIC)) == "null\n"
        address = json.loads(added)["pciAddr"]
        assert isinstance(address, str)
        return address

    def servers(self) -> None:
        """Restore 100 virtual servers, and none in their place."""
        for rules in (_RULES, _NO_RULES):
            words = ("kata-ipvs", "ipvsadm", "--restore", "-", "--replace", self._sandbox.id)
            _succeeded(self._sandbox.cli(*words, stdin=rules))

    def measure(self) -> Measured:
        """The state now."""
        agent_kib, agent_descriptors = _succeeded(self._sandbox.guest("sh", "-c", _AGENT)).split()
        status = Path(f"/proc/{self._pid}/status").read_text()
        # Without the guest's memory, which is shared (RssShmem).
        resident = re.search(r"RssAnon:\s+(\d+)", status)
        assert resident is not None
        code_kib, blocks = self._translated()
        qemu_kib = int(resident[1]) - code_kib
        lost = output_queue(self._sandbox, CONTROL_PORT).kept
        return Measured(qemu_kib, blocks, self._descriptors(), int(agent_kib), int(agent_descriptors), lost)

    def _translated(self) -> tuple[int, int]:
        """KiB and blocks of translated code in QEMU without KVM: it grows with each program that the guest starts.

        It is emptied when it is full (QEMU's accel/tcg/translate-all.c, tb_flush).
        """
        with self._sandbox.session() as session:
            answer = session.monitor().execute("human-monitor-command", {"command-line": "info jit"})
        found = re.search(r"gen code size +(\d+).*?TB count +(\d+)", str(answer), re.DOTALL)
        return (0, 0) if found is None else (int(found[1]) // 1024, int(found[2]))

    def _descriptors(self) -> int:
        """The fewest of half a second: QEMU closes a connection some time after its client did."""
        end = time.monotonic() + _SETTLE_SECONDS
        least = len(os.listdir(f"/proc/{self._pid}/fd"))
        while time.monotonic() < end:
            select([], [], [], _PAUSE_SECONDS)
            least = min(least, len(os.listdir(f"/proc/{self._pid}/fd")))
        return least


def _succeeded(done: Completed) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout
