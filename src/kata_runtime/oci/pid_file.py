"""The pid file: an engine's monitor reads from it which process to wait for."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import suppress


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid file atomically, unless ``path`` is empty. :raise HostError: it cannot be written."""
    if not path:
        return
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise HostError.of(f"cannot write the pid file {path}", error) from error
        raise
