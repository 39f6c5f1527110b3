"""What the threads of a process are doing."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_FRAMES = 8


def threads_of(pid: int) -> list[str]:
    """A line for each thread: name, state, CPU time, and the kernel's functions it is in, innermost first (proc(5)).

    A thread that waits for ever shows in what; one that spins is in state R in none.
    """
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda path: int(path.name)):
        try:
            name, _, fields = (task / "stat").read_text().partition("(")[2].rpartition(") ")
            stack = (task / "stack").read_text()
        except (FileNotFoundError, ProcessLookupError):
            # It has ended meanwhile.
            continue
        state, user, system = (fields.split()[index] for index in (0, 11, 12))
        frames = [line.rpartition(" ")[2].partition("+")[0] for line in stack.splitlines()]
        seconds = (int(user) + int(system)) / _TICKS
        lines.append(f"{name}: {state}, {seconds:.2f} s of CPU, {' < '.join(frames[:_FRAMES])}")
    return lines
