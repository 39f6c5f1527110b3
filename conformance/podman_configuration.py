"""The configuration with which Podman calls this runtime, for its own tests and for those of tests/system/engines."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE_NAME = "containers.conf"
# The image's kernel allows less than some hosts' limits.
_LIMITS = ("nofile=1024:1024",)
# Events go to a file, since there need not be a journal.
_TEXT = """\
[containers]
default_ulimits = [{limits}]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "kata"
runtime_supports_json = ["kata"]
runtime_supports_nocgroup = ["kata"]
{engine}[engine.runtimes]
kata = ["{program}"]
"""


def own_state(directory: Path) -> str:
    """Lines of ``[engine]`` for a Podman that shares a host with others.

    Which containers run, and the locks of all, are otherwise in /run/libpod and /dev/shm, whatever --root and --runroot
    say. ``system reset`` removes that directory, and the next command of any Podman frees all locks.
    """
    return f'tmp_dir = "{directory}/libpod"\nlock_type = "file"\n'


def write_configuration(
    directory: Path, command: Sequence[str], more: str = "", limits: Sequence[str] = _LIMITS, engine: str = ""
) -> Path:
    """Write containers.conf, and the runtime's program, which runs ``command``; returns that.

    ``engine`` are further lines of ``[engine]``, ``more`` further sections. A program of its own, since Podman does not
    pass options of the runtime to every command.
    """
    program = write_program(directory, command)
    quoted = ", ".join(f'"{limit}"' for limit in limits)
    (directory / FILE_NAME).write_text(_TEXT.format(program=program, limits=quoted, engine=engine) + more)
    return program


def write_program(directory: Path, command: Sequence[str]) -> Path:
    """Write a program that runs ``command`` with the arguments that it gets."""
    program = directory / "kata"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)
    return program
