"""What importing the libraries costs that the command path avoids: whole processes, next to a bare interpreter."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness import host, in_turns, ratio, run, seconds, table, write

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[1]
_PACKAGES = _ROOT / "build/library-imports"
_ROUNDS = 21
_BARE = "nothing"
_STATEMENTS = {
    _BARE: "pass",
    "`json`": "import json",
    "`typing`": "import typing",
    "`argparse`": "import argparse",
    "`asyncio`": "import asyncio",
    "`click`": "import click",
    "`qemu.qmp`": "import qemu.qmp",
    "`pyroute2`": "import pyroute2",
    "the command line of `kata-runtime`": "import kata_runtime.cli.main",
}

_TEXT = """# Imports

{host}; medians of {rounds}. `make bench` writes this file.

Each row is a whole process, `python3 -I -S -c "import ..."`, timed from outside; all take turns. The last column is
what the import adds to a command that would otherwise do nothing.

{rows}"""


def measure() -> None:
    """Install the libraries in a directory of their own if they are missing, and write docs/benchmarks/imports.md."""
    if not _PACKAGES.is_dir():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--require-hashes"]
        run([*pip, "--no-deps", "--target", str(_PACKAGES), "-r", str(_ROOT / "requirements-bench.lock")])
    paths = [str(_ROOT / "src"), str(_PACKAGES)]
    taken = in_turns({name: _timed(statement, paths) for name, statement in _STATEMENTS.items()}, _ROUNDS)
    rows = []
    for name, values in taken.items():
        added = statistics.median(a - b for a, b in zip(values, taken[_BARE], strict=True))
        rows.append(
            (name, _milliseconds(statistics.median(values)), f"{ratio(values, taken[_BARE]):.1f}", _milliseconds(added))
        )
    columns = ("imported", "time", "ratio to a bare interpreter", "added")
    write("imports.md", _TEXT.format(host=host("none"), rounds=_ROUNDS, rows=table(columns, rows)))


def _timed(statement: str, paths: list[str]) -> Callable[[], float]:
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {paths!r}; {statement}"]
    return lambda: seconds(lambda: run(argv))


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.0f} ms"
