"""Signals that end a program which has to remove what it made."""

from __future__ import annotations

import signal
import sys


def exit_on_signals() -> None:
    """Let the signals that usually end a program raise SystemExit, with the status that a shell would report."""
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
