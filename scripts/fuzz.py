"""Coverage-guided fuzzing of every decoder of guest bytes and every parser of user input (make fuzz RUNS=N).

Runs are shared out evenly among the targets, each in a process of its own. An input that ends in anything but a value
or a KataError, or takes too much time or memory, is shown in hexadecimal and makes the command fail. With --keep,
the corpus becomes the smallest inputs found that together reach all the code that was reached.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_WORK = _ROOT / "build/fuzz"
# For one input; each takes less than a millisecond. The tables of a real guest have 4 KiB and more.
_SECONDS = 5
_MEMORY_MIB = 256
_LARGEST_BYTES = 8192
_INSTRUMENTED = ["kata_runtime", "tomllib", "shlex"]


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all (default: 1,000,000)")
    parser.add_argument("--target", action="append", help="only this one; can be repeated")
    parser.add_argument("--keep", action="store_true", help="replace the corpus by the smallest inputs with its reach")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.inside:
        return _fuzz(options.inside, [options.program, *rest])
    from tests.fuzz import corpus

    names = options.target or list(corpus.TARGETS)
    unknown = sorted(set(names) - set(corpus.TARGETS))
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(corpus.TARGETS)}")
    done, failed = 0, []
    for name in names:
        runs, finding = _run(name, max(options.runs // len(names), 1), keep=options.keep)
        done += runs
        if finding:
            failed.append(name)
            print(f"{name}: {finding}", flush=True)
        else:
            print(f"{name}: {runs:,} runs, nothing found", flush=True)
    print(f"{done:,} runs over {len(names)} targets; found something in: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _fuzz(name: str, arguments: list[str]) -> int:
    """In the child: libFuzzer takes over and never returns."""
    # Not in .venv: only this command needs it (requirements-fuzz.lock).
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        corpus = importlib.import_module("tests.fuzz.corpus")
    target = corpus.TARGETS[name]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()
    return 0


def _run(name: str, runs: int, *, keep: bool) -> tuple[int, str]:
    """Fuzz one target; how many inputs it had, and what was found."""
    from tests.fuzz import corpus

    _WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_WORK, prefix=f"{name}-") as scratch:
        inputs, found, files = (Path(scratch, part) for part in ("inputs", "found", "files"))
        for directory in (inputs, found, files):
            directory.mkdir()
        for number, data in enumerate(corpus.load(name)):
            (inputs / str(number)).write_bytes(data)
        limits = [f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEMORY_MIB}", f"-max_len={_LARGEST_BYTES}"]
        argv = [f"-runs={runs}", *limits, f"-artifact_prefix={found}/", "-print_final_stats=1", str(inputs)]
        output = _child(name, argv, files)
        executed = re.search(r"stat::number_of_executed_units: +(\d+)", output)
        failures = [path.read_bytes().hex() for path in found.iterdir()]
        if keep:
            _keep(name, inputs, files)
        reason = "\n".join([*failures, *output.splitlines()[-60:]]) if failures or executed is None else ""
        return int(executed[1]) if executed else 0, reason


def _child(name: str, arguments: list[str], files: Path) -> str:
    program = files / "program"
    # libFuzzer starts the program that argv[0] names again when it chooses inputs.
    words = [sys.executable, "-m", "scripts.fuzz", "--inside", name, "--program", str(program)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(files), "PYTHONHASHSEED": "0"}
    argv = [str(program), *arguments]
    done = subprocess.run(argv, cwd=_ROOT, env=environment, capture_output=True, errors="replace", check=False)
    return done.stdout + done.stderr


def _keep(name: str, inputs: Path, files: Path) -> None:
    """Let libFuzzer choose from what it collected, and make that the corpus."""
    from tests.fuzz import corpus

    smallest = inputs.with_name("smallest")
    smallest.mkdir()
    # Without counters an input is kept for code that no smaller one reaches, not for how often it does.
    _child(name, ["-merge=1", "-use_counters=0", str(smallest), str(inputs)], files)
    merged = {path.read_bytes() for path in smallest.iterdir()}
    if merged:
        corpus.save(name, merged)
    shutil.rmtree(smallest)


if __name__ == "__main__":
    sys.exit(main())
