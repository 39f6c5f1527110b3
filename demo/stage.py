"""What the demonstrations share: paragraphs, and command lines that are shown with their output."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lab.ending_signals import exit_on_signals
from lab.namespace import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = Path(sys.executable).with_name("kata-runtime")
_SECONDS = 180
_BOLD, _DIM, _PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class DemoError(Exception):
    """A step failed."""


def explain(text: str) -> None:
    """Print a paragraph of explanation."""
    print(f"\n{_DIM}{text}{_PLAIN}\n", flush=True)


def show(prompt: str, text: str) -> None:
    """What is typed, or asked for."""
    print(f"{_BOLD}{prompt} {text}{_PLAIN}", flush=True)


def typed(prompt: str, command: str, prefix: Sequence[str], options: str, *, stdin: str | None = None) -> str:
    """Show a command line and its output, as an operator sees them; the output.

    ``prefix`` leads to where it runs; ``options`` are added to kata-runtime's.

    :raise DemoError: it failed
    """
    show(prompt, f"{command} <<< '{stdin}'" if stdin else command)
    words = command.replace("kata-runtime", f"{PROGRAM} {options}", 1)
    done = subprocess.run(
        [*prefix, "sh", "-c", words],
        input=stdin or "", capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode:
        raise DemoError(f"{command!r} ended with {done.returncode}")
    return done.stdout


def performed(story: Callable[[ExitStack], None]) -> int:
    """The exit status of a demonstration; what it made, and put on its stack, is removed in any case."""
    exit_on_signals()
    try:
        with ExitStack() as stack:
            story(stack)
    except (DemoError, LabError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    explain("Done. Everything that this demo made is gone again.")
    return 0
