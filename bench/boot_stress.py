"""Starts a sandbox from a template, uses it and deletes it, a thousand times or as often as the argument says.

Prints what failed and how long each step took. A start is a failure, too, when it told anything, as one that fell back
to booting does.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from bench.harness import bench_runtime, table, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Runtime

_RUNS = 1000
_SHARES = (50, 90, 99, 100)
_GREETING = "at work\n"


def main() -> int:
    """Return the exit status: 1 when a run failed."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    taken: dict[str, list[float]] = {}
    failures: list[str] = []
    with bench_runtime() as runtime:
        template = template_of(runtime).stat().st_ino
        for number in range(runs):
            failures += [f"run {number}: {reason}" for reason in _life(runtime, f"stress{number}", taken)]
        if template_of(runtime).stat().st_ino != template:
            failures.append("the template was made anew meanwhile")
        if left := sorted(entry.name for entry in runtime.root.iterdir() if not entry.name.startswith(".")):
            failures.append(f"directories are left: {left}")
    rows = [
        [step, *(f"{_percentile(values, share) * 1000:.0f} ms" for share in _SHARES)] for step, values in taken.items()
    ]
    print(table([f"{runs:,} runs", *(f"{share} %" for share in _SHARES)], rows))
    print("\n".join([*failures, f"{len(failures)} failures"]))
    return 1 if failures else 0


def _life(runtime: Runtime, name: str, taken: dict[str, list[float]]) -> Iterator[str]:
    """Start, use and delete one; the reasons why it is a failure."""
    for step, words, said in (
        ("run", ("run", "--detach", name), f"{name}\n"),
        ("exec", ("exec", name, "echo", _GREETING.strip()), _GREETING),
        ("delete", ("delete", "--force", name), ""),
    ):
        start = time.perf_counter()
        done = runtime.cli(*words)
        taken.setdefault(step, []).append(time.perf_counter() - start)
        if (done.returncode, done.stdout, done.stderr) != (0, said, ""):
            yield f"{step}: exit status {done.returncode}, {done.stdout!r}, {done.stderr!r}"


def _percentile(values: list[float], share: int) -> float:
    return sorted(values)[max(len(values) * share // 100 - 1, 0)]


if __name__ == "__main__":
    sys.exit(main())
