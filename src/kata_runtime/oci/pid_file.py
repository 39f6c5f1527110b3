"""The file in which an engine's monitor finds the process that it is to wait for."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError


def write_pid_file(path: str, pid: int) -> None:
    """Write it in one step; nothing where there is no ``path``. :raise HostError: it cannot be written."""
    if not path:
        return
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.replace(temporary, path)
    except OSError as error:
        raise HostError.of(f"cannot write the pid file {path}", error) from error
