"""Ends every command before and after each of its changing system calls, and writes docs/kill-anywhere.md.

``--every N`` tries each N-th point, ``--every-boot N`` of run and delete, which take seconds a point; names of commands
narrow it down further, and then nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.system.killing.life import Deletion, Start
from tests.system.killing.plans import plans, prepared, starting_point
from tests.system.killing.subject import SIGNALS, Subject

from bench.harness import bench_sandbox, host, table
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.system.conftest import Sandbox
    from tests.system.killing.subject import Point

_RESULT = Path(__file__).parents[1] / "docs/kill-anywhere.md"

_TEXT = """# Killed anywhere

{machine}.
`make kill-anywhere` writes this file; with `EVERY=N` it tries each N-th point, with `EVERY_BOOT=N` of `run`
and `delete`.

A command is run under ptrace(2) once to list the system calls by which it changes something: files, locks, processes,
TAPs, what it sends to QEMU and to the guest (`tests/system/killing/calls.py`). Then it is run again for each of them,
and gets SIGKILL, SIGTERM or SIGINT right before the call or right after it. A reading command follows, which must
succeed; then record, files, host links, QEMU's devices and descriptors, and the guest's links, addresses, routes and
virtual servers must be as before the command or as after it; then the command is done again, or taken back. Of `run`
and `delete` no process and no file may be left behind once `delete --force` was called. Of the calls by which `run`
copies a template's memory only the first and the last count.

{table}
{total} of all {all} points were tried ({chosen}), {survived} survived. Took {minutes:.0f} minutes.
{wrong}
## The calls

{calls}"""


class Tried(NamedTuple):
    """What came of one command."""

    name: str
    calls: list[str]
    all: int
    points: list[Point]
    wrong: dict[Point, list[str]]


def main() -> int:
    """Return the exit status: 1 when a command did not survive everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--every-boot", type=int, default=1, metavar="N")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    start = time.monotonic()
    # A step may take longer without KVM, but where KVM fails at times every point would.
    with bench_sandbox('accelerator = "tcg"') as sandbox:
        accelerator = load_record(str(sandbox.directory)).accelerator
        tried = list(_try_all(sandbox, options.every, options.every_boot, options.names))
    if not options.names:
        chosen = f"`EVERY={options.every} EVERY_BOOT={options.every_boot}`"
        _RESULT.write_text(_report(tried, host(accelerator), chosen, time.monotonic() - start))
    return 1 if any(one.wrong for one in tried) else 0


def _try_all(sandbox: Sandbox, every: int, every_boot: int, names: Sequence[str]) -> Iterator[Tried]:
    with prepared(sandbox):
        for plan in plans(sandbox.id):
            if names and plan.name not in names:
                continue
            for words in starting_point(plan):
                sandbox.cli(*words.words, stdin=words.stdin)
            yield _try(plan.name, Subject(sandbox, plan), every)
            if starting_point(plan):
                sandbox.cli(*plan.command.words, stdin=plan.command.stdin)
    for life in (Start, Deletion):
        if not names or life.name in names:
            yield _try(life.name, life(sandbox.runtime), every_boot)


def _try(name: str, subject: Subject | Start | Deletion, every: int) -> Tried:
    every_point = subject.points()
    points = every_point[::every]
    wrong = {}
    for point in points:
        found = subject.survive(point)
        if found:
            wrong[point] = found
            print(f"{name}: {_described(subject.calls, point)}:")
            print(*(f"    {line}" for line in found), sep="\n", flush=True)
    print(f"{name}: {len(points)} points, {len(points) - len(wrong)} survived", flush=True)
    return Tried(name, subject.calls, len(every_point), points, wrong)


def _described(calls: Sequence[str], point: Point) -> str:
    return f"{point.number.name} {point.moment} call {point.at + 1} of {len(calls)}, {calls[point.at]}"


def _report(tried: Sequence[Tried], where: str, chosen: str, seconds: float) -> str:
    rows = []
    for one in tried:
        row = [f"`{one.name}`", str(len(one.calls))]
        for number in SIGNALS:
            points = [point for point in one.points if point.number == number]
            row.append(f"{sum(point not in one.wrong for point in points)} of {len(points)}")
        rows.append(row)
    total = sum(len(one.points) for one in tried)
    lost = sum(len(one.wrong) for one in tried)
    lines = [
        f"- `{one.name}`: {_described(one.calls, point)}: {'; '.join(found)}"
        for one in tried
        for point, found in one.wrong.items()
    ]
    calls = [
        [f"`{one.name}`", ", ".join(f"{count} {call}" for call, count in Counter(one.calls).most_common())]
        for one in tried
    ]
    return _TEXT.format(
        machine=where,
        table=table(["command", "calls", *(number.name for number in SIGNALS)], rows),
        total=total,
        chosen=chosen,
        all=sum(one.all for one in tried),
        survived=total - lost,
        minutes=seconds / 60,
        wrong="\n".join(["", *lines, ""]) if lines else "",
        calls=table(["command", "its changing calls"], calls),
    )


if __name__ == "__main__":
    sys.exit(main())
