"""The pid file: an engine's monitor reads from it which process to wait for."""

from __future__ import annotations

from kata_runtime.errors import HostError
from kata_runtime.sandbox.files import replace_whole


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid file atomically, unless ``path`` is empty. :raise HostError: it cannot be written."""
    if not path:
        return
    try:
        replace_whole(path, b"%d" % pid, mode=0o666)  # less the umask: the monitor may be another user
    except OSError as error:
        raise HostError.of(f"cannot write the pid file {path}", error) from error
