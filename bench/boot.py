"""Starting a sandbox: booted and from a template, each next to QEMU started by hand with the same arguments."""

from __future__ import annotations

import os
import re
import statistics
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.system.conftest import Runtime

from bench.harness import (
    RESULTS,
    ROUNDS,
    Taken,
    bench_runtime,
    configure,
    in_turns,
    machine,
    ratio,
    run,
    seconds,
    table,
    template_of,
    write,
)
from bench.plot import bars
from bench.raw_machine import arguments_of, raw_machine
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.raw_machine import Arguments
    from kata_runtime.sandbox.record import Record

_QUICK_ROUNDS = 21
_COLD, _RAW_COLD = "`run`, booted", "QEMU by hand, booted"
_WARM, _RAW_WARM = "`run`, from a template", "QEMU by hand, from a template"

_TEXT = """# Starting a sandbox

{machine} `make bench` writes this file.

`run --detach` is timed from outside, with the start of Python, to its end: the agent has answered and the guest has its
own randomness, clock and name. By hand QEMU is started with the same arguments (those of a running sandbox, taken from
/proc) by a small program of the standard library (`bench/raw_start.py`), which is timed without its own start, to the
agent's first answer. All take turns. From a template both copy the template's memory.

{table}
![Seconds to a sandbox](boot.svg)

## Memory

Of a fresh sandbox's QEMU, in MiB. The guest's memory is a file without a name (memfd_create(2)): a template is copied
into it whole, so that it may hold pages that QEMU has not mapped yet. What a sandbox takes of the host is that file and
QEMU's own pages: the last column.

{memory}"""


class Memory(NamedTuple):
    """Of one QEMU, in MiB."""

    resident: float
    proportional: float
    file: float
    all: float


class Starts:
    """Starts that take turns: with the program and by hand, with a template and without."""

    def __init__(self, warm: Runtime) -> None:
        self._warm = warm
        self._cold = Runtime(warm.root, warm.root / ".cold.toml")
        self._numbers = count()
        with self._started(warm) as record:
            self.accelerator = record.accelerator
            self._arguments: Arguments = arguments_of(record.pid)
        configure(self._cold, 'template = "off"', f'accelerator = "{self.accelerator}"')
        self._template = template_of(warm)

    @contextmanager
    def _started(self, runtime: Runtime) -> Iterator[Record]:
        name = f"start{next(self._numbers)}"
        run(runtime.argv("run", "--detach", name))
        try:
            yield load_record(str(runtime.root / name))
        finally:
            run(runtime.argv("delete", "--force", name))

    def _typed(self, runtime: Runtime) -> float:
        name = f"start{next(self._numbers)}"
        try:
            return seconds(lambda: run(runtime.argv("run", "--detach", name)))
        finally:
            run(runtime.argv("delete", "--force", name))

    def _by_hand(self, template: Path | None) -> float:
        with raw_machine(self._arguments, template) as made:
            return made.seconds

    def quick(self, rounds: int) -> Taken:
        """Seconds of each start from the template."""
        return in_turns(
            {_WARM: lambda: self._typed(self._warm), _RAW_WARM: lambda: self._by_hand(self._template)}, rounds
        )

    def slow(self, rounds: int) -> Taken:
        """Seconds of each boot, and of starts from the template between them."""
        return in_turns(
            {
                _COLD: lambda: self._typed(self._cold),
                _RAW_COLD: lambda: self._by_hand(None),
                _WARM: lambda: self._typed(self._warm),
            },
            rounds,
        )

    def memory(self) -> dict[str, Memory]:
        """What a fresh one of each kind takes."""
        found = {}
        for name, runtime in ((_COLD, self._cold), (_WARM, self._warm)):
            with self._started(runtime) as record:
                found[name] = memory_of(record.pid)
        for name, template in ((_RAW_COLD, None), (_RAW_WARM, self._template)):
            with raw_machine(self._arguments, template) as made:
                found[name] = memory_of(made.pid)
        return found


def memory_of(pid: int) -> Memory:
    """What a QEMU takes now."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {key: int(number) / 1024 for key, number in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE)}
    opened = Path(f"/proc/{pid}/fd").iterdir()
    # Inherited, and opened by its path.
    file = next(entry for entry in opened if os.readlink(entry).startswith("/memfd:guest-memory"))
    occupied = os.stat(file).st_blocks * 512 / 1048576
    # Without the mapped part of that file, which is its own.
    return Memory(sizes["Rss"], sizes["Pss"], occupied, sizes["Pss"] - sizes["Pss_Shmem"] + occupied)


def ratios() -> dict[str, float]:
    """What ``make bench-check`` bounds."""
    with bench_runtime() as runtime:
        starts = Starts(runtime)
        quick, slow, memory = starts.quick(7), starts.slow(1), starts.memory()
    return {
        "run from a template / QEMU by hand from a template": ratio(quick[_WARM], quick[_RAW_WARM]),
        "run from a template / run, booted": ratio(slow[_WARM], slow[_COLD]),
        "run, booted / QEMU by hand, booted": ratio(slow[_COLD], slow[_RAW_COLD]),
        "memory from a template / memory, booted": memory[_WARM].all / memory[_COLD].all,
    }


def measure() -> None:
    """Write docs/benchmarks/boot.md and its plot."""
    with bench_runtime() as runtime:
        starts = Starts(runtime)
        quick, slow, memory = starts.quick(_QUICK_ROUNDS), starts.slow(ROUNDS), starts.memory()
    taken = {_COLD: slow[_COLD], _RAW_COLD: slow[_RAW_COLD], **quick}
    middle = {name: statistics.median(values) for name, values in taken.items()}
    over = {_COLD: ratio(slow[_COLD], slow[_RAW_COLD]), _WARM: ratio(quick[_WARM], quick[_RAW_WARM])}
    rows = [
        [name, f"{value:.2f} s", f"{max(taken[name]):.2f} s", f"{over[name]:.2f}" if name in over else "1"]
        for name, value in middle.items()
    ]
    text = _TEXT.format(
        machine=machine(starts.accelerator),
        table=table(["start", "median", "slowest", "ratio to by hand"], rows),
        memory=table(
            ["start", "resident", "proportional", "guest's memory file", "together"],
            [[name, *(f"{size:.0f}" for size in sizes)] for name, sizes in memory.items()],
        ),
    )
    write("boot.md", text)
    groups: dict[str, dict[str, float]] = {}
    for name, value in middle.items():
        who, how = name.split(", ")
        groups.setdefault(how, {})[who] = value
    (RESULTS / "boot.svg").write_text(bars("Seconds to a sandbox", "s", groups))
