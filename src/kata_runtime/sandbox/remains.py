"""Finds and ends the processes of a sandbox: by its record, or by their user where that cannot be read."""

from __future__ import annotations

from kata_runtime.errors import HostError
from kata_runtime.sandbox.identity import NOBODY, user_of
from kata_runtime.sandbox.process import is_alive, kill_process, processes_of
from kata_runtime.sandbox.record import load_record


def sandbox_processes(directory: str, container_id: str) -> list[tuple[int, int]]:
    """Pid and start time of QEMU (first, if the record names it) and of the sandbox's other processes."""
    found = []
    try:
        record = load_record(directory)
    except (FileNotFoundError, HostError):
        pass
    else:
        known = ((record.pid, record.start_time), (record.virtiofsd, record.virtiofsd_start_time))
        found += [process for process in known if is_alive(*process)]
    user = user_of(directory)
    # In a user namespace sandboxes may share a user: the process may belong to a sandbox of another root.
    if user != NOBODY:
        found += [each for each in processes_of(user, f"guest={container_id}".encode()) if each not in found]
    return found


def end_processes(directory: str, container_id: str) -> None:
    """Kill all processes of the sandbox, and wait for their end.

    :raise DeadlineError: a process does not end.
    """
    for pid, start_time in sandbox_processes(directory, container_id):
        kill_process(pid, start_time)
