"""Programs that stay in the foreground, in contrast to the daemons of Open vSwitch and OVN."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_END_SECONDS = 10.0


@contextmanager
def running_program(
    argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, end: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[str]]:
    """A program whose standard output can be read, with standard error in ``log``; the signal ``end`` ends it."""
    with (
        log.open("a") as errors,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **(environment or {})}, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(end)
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
