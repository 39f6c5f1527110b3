"""Network namespaces, and programs that run in them."""

from __future__ import annotations

import os
import shlex
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Completed = subprocess.CompletedProcess[str]

COMMAND_SECONDS = 180
_SHOWN_CHARACTERS = 400


class LabError(Exception):
    """A part of the lab failed."""


class ProgramError(LabError):
    """A program failed; ``status`` is that of subprocess.CompletedProcess, negative for a signal."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, *, stdin: str = "") -> str:
    """Standard output of a program that must succeed; ``environment`` is added to this process's own.

    :raise ProgramError: it failed; with the command line and what it printed
    """
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, input=stdin,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        raise ProgramError(
            f"{shlex.join(argv)[:_SHOWN_CHARACTERS]} ended with {done.returncode}: {done.stdout}{done.stderr}",
            done.returncode,
        )
    return done.stdout


class HostNamespace:
    """A network namespace of this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ["nsenter", f"--net=/run/netns/{name}", "--"]

    def run(self, *argv: str, environment: Mapping[str, str] | None = None) -> str:
        """Standard output of a program in it that must succeed."""
        return run([*self.prefix, *argv], environment)

    def ip(self, words: str) -> str:
        """Run ``ip`` in it."""
        return self.run("ip", *words.split())


@contextmanager
def made_namespace(name: str) -> Iterator[HostNamespace]:
    """A new network namespace with lo up, deleted at the end."""
    run(["ip", "netns", "add", name])
    try:
        made = HostNamespace(name)
        made.ip("link set lo up")
        yield made
    finally:
        run(["ip", "netns", "delete", name])
