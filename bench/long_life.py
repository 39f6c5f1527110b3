"""A thousand rounds of NICs and of virtual servers on one sandbox: what drifts; writes docs/benchmarks/long-life.md."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

from tests.system.hosts.rounds import Measured, Rounds

from bench.harness import RESULTS, bench_sandbox, machine, seconds, table, write
from bench.plot import Axis, chart
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 1000
_STEPS = 10
_TEXT = """# Long life

{machine}
`make long-life ROUNDS={count}` writes this file.

One sandbox, {rounds} rounds that add a NIC and delete it, then {rounds} that restore 100 virtual servers and
replace them by none. Memory is resident. QEMU's is without the guest's, and without translated code,
which QEMU gathers where there is no KVM. Lost buffers are those of the agent's control port, of 128, that QEMU
does not return to the guest. The time of a round, two commands, is the median of its stretch.
{growth}
## Adding and deleting a NIC

All {rounds} went to {places}.

{nics}
## Restoring virtual servers

{servers}
![Milliseconds a round](long-life.svg)
"""


def main() -> int:
    """Return the exit status."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    with bench_sandbox() as sandbox:
        rounds = Rounds(sandbox)
        places: set[str] = set()
        before = rounds.measure()
        nics, nic_points = _stretches(rounds, lambda: places.add(rounds.nic()), count)
        servers, server_points = _stretches(rounds, rounds.servers, count)
        growth = _growth(before, rounds.measure())
        accelerator = load_record(str(sandbox.directory)).accelerator
    text = _TEXT.format(
        machine=machine(accelerator),
        count=count,
        rounds=f"{count:,}",
        places=", ".join(sorted(places)),
        growth=growth,
        nics=nics,
        servers=servers,
    )
    write("long-life.md", text)
    slowest = max(up for _, up in nic_points + server_points)
    picture = chart(
        "A round of two commands",
        Axis("rounds done", count),
        Axis("ms", slowest),
        {"NIC": nic_points, "virtual servers": server_points},
    )
    (RESULTS / "long-life.svg").write_text(picture)
    return 0


def _growth(before: Measured, after: Measured) -> str:
    """Sentences about why QEMU grows."""
    blocks = after.qemu_blocks - before.qemu_blocks
    if blocks <= 0:
        return ""
    size = (after.qemu_kib - before.qemu_kib) * 1024 / blocks
    return f"""
What grows is QEMU's table and tree of the blocks of code that it has translated (accel/tcg): {size:.0f} bytes a block
from first to last. They are emptied together with the code when its buffer is full, by default at 1 GiB.
"""


def _stretches(rounds: Rounds, action: Callable[[], object], count: int) -> tuple[str, list[tuple[float, float]]]:
    """A table with a row a tenth of the rounds, and their times as points."""
    action()
    rows = [_row(0, "", rounds.measure())]
    points = []
    for step in range(1, _STEPS + 1):
        taken = statistics.median(seconds(action) for _ in range(count // _STEPS))
        points.append((float(step * count // _STEPS), taken * 1000))
        rows.append(_row(step * count // _STEPS, f"{taken * 1000:.0f} ms", rounds.measure()))
    heading = [
        "rounds",
        "time",
        "QEMU",
        "its descriptors",
        "translated blocks",
        "agent",
        "its descriptors",
        "lost buffers",
    ]
    return table(heading, rows), points


def _row(done: int, taken: str, measured: Measured) -> list[str]:
    return [
        f"{done:,}",
        taken,
        f"{measured.qemu_kib / 1024:.1f} MiB",
        str(measured.qemu_descriptors),
        f"{measured.qemu_blocks:,}",
        f"{measured.agent_kib / 1024:.1f} MiB",
        str(measured.agent_descriptors),
        str(measured.lost_buffers),
    ]


if __name__ == "__main__":
    sys.exit(main())
