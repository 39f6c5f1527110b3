"""QEMU started by hand with the arguments of a sandbox's: the baseline for boots and for the throughput of NICs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest.channel import AgentChannel
from kata_runtime.vmm.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator

_STARTER = Path(__file__).with_name("raw_start.py")
_INCOMING = ["-incoming", "defer"]
_EXEC_SECONDS = 120.0


class Arguments(NamedTuple):
    """QEMU's arguments, which start afresh, and what the descriptors are whose numbers they have."""

    argv: list[str]
    sockets: dict[str, int]
    console: int
    memory: int
    memory_bytes: int


def arguments_of(pid: int) -> Arguments:
    """Those of a sandbox's running QEMU."""
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    if argv[-2:] == _INCOMING:
        del argv[-2:]
    text = "\n".join(argv)
    sockets = {
        name: int(number) for name, number in re.findall(r"^socket,id=(\w+),fd=(\d+),server=on", text, re.MULTILINE)
    }
    (console,) = re.findall(r"^socket,id=console,fd=(\d+)$", text, re.MULTILINE)
    ((size, memory),) = re.findall(r"size=(\d+)M,mem-path=/proc/self/fd/(\d+)", text)
    return Arguments(argv, sockets, int(console), int(memory), int(size) << 20)


class RawMachine:
    """A machine that was started by hand; ``seconds`` until its agent answered."""

    def __init__(self, directory: Path, pid: int, seconds: float) -> None:
        self.pid = pid
        self.seconds = seconds
        self._directory = directory

    def monitor(self) -> Monitor:
        """A connection to QEMU's monitor."""
        return Monitor.connect(self._directory / "monitor")

    def run(self, *argv: str, stdin: bytes = b"") -> str:
        """Standard output of a program in the guest that must succeed."""
        channel = AgentChannel(str(self._directory / "port1"), str(self._directory / "port2"))
        try:
            done = channel.run(argv, stdin, seconds=_EXEC_SECONDS)
        finally:
            channel.close()
        if done.exit_status:
            raise RuntimeError(f"{argv[:1]} in the guest: {done.stderr.decode()}")
        return done.stdout.decode()


@contextmanager
def raw_machine(arguments: Arguments, template: Path | None) -> Iterator[RawMachine]:
    """A machine that boots, or is restored from ``template``; it ends with the block, and with this process."""
    with tempfile.TemporaryDirectory(prefix="kata-raw-") as name:
        directory = Path(name)
        plan = {**arguments._asdict(), "directory": name, "template": "" if template is None else str(template)}
        if template is not None:
            plan["argv"] = [*arguments.argv, *_INCOMING]
        (directory / "plan.json").write_text(json.dumps(plan))
        argv = [sys.executable, "-I", "-S", str(_STARTER), str(directory / "plan.json")]
        log = directory / "log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as starter,
        ):
            assert starter.stdout is not None
            pid, _, taken = starter.stdout.readline().partition(" ")
            if not taken:
                raise RuntimeError(f"QEMU, started by hand, has ended: {log.read_text()}")
            # Leaving the block closes its standard input, and waits.
            yield RawMachine(directory, int(pid), float(taken))
