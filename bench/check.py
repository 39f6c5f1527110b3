"""Measures a short set of ratios and compares each with its bound in bounds.toml; or those of the parts named.

Ratios of what takes turns on one machine, so that it may be slow, old or busy; a busy one still makes them vary.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from bench import boot, data_path, ipvs, start
from bench.harness import bench_sandbox, bounded, table

_BOUNDS = Path(__file__).with_name("bounds.toml")
_ALONE = {"boot": boot.ratios, "data-path": data_path.ratios}
_ON_A_SANDBOX = {"start": start.ratios, "ipvs": ipvs.ratios}
PARTS = (*_ALONE, *_ON_A_SANDBOX)


def main() -> int:
    """Return the exit status: 1 when a ratio is above its bound, or has none."""
    wanted = sys.argv[1:] or PARTS
    found: dict[str, dict[str, float]] = {}
    for name in wanted:
        if name in _ALONE:
            with bounded(name):
                found[name] = _ALONE[name]()
    if any(name in _ON_A_SANDBOX for name in wanted):
        with bench_sandbox() as sandbox:
            for name in wanted:
                if name not in _ALONE:
                    with bounded(name):
                        found[name] = _ON_A_SANDBOX[name](sandbox)
    rows, worse = compare(found, tomllib.loads(_BOUNDS.read_text()))
    print(table(["", "ratio", "measured", "bound"], rows))
    print(f"{worse} of {len(rows)} ratios are above their bounds")
    return 1 if worse else 0


def compare(found: dict[str, dict[str, float]], bounds: dict[str, dict[str, float]]) -> tuple[list[list[str]], int]:
    """A row for each ratio, the wrong ones marked, and how many these are."""
    rows = []
    for part, values in found.items():
        for name in dict.fromkeys([*values, *bounds.get(part, {})]):
            value, bound = values.get(name), bounds.get(part, {}).get(name)
            wrong = value is None or bound is None or value > bound
            shown = [text if number is None else f"{number:.2f}" for number, text in ((value, "none"), (bound, "none"))]
            rows.append(["**worse**" if wrong else "", f"{part}: {name}", *shown])
    return rows, sum(bool(row[0]) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
