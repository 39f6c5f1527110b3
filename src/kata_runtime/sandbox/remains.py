"""What runs of a sandbox, found by its record and, where that cannot be read, by the user that is its own."""

from __future__ import annotations

from kata_runtime.errors import HostError
from kata_runtime.sandbox.identity import NOBODY, user_of
from kata_runtime.sandbox.process import is_alive, kill_process, processes_of
from kata_runtime.sandbox.record import load_record


def sandbox_processes(directory: str, container_id: str) -> list[tuple[int, int]]:
    """Pid and start time of QEMU (first, when the record names it) and of the processes beside it."""
    found = []
    try:
        record = load_record(directory)
    except (FileNotFoundError, HostError):
        pass
    else:
        known = ((record.pid, record.start_time), (record.virtiofsd, record.virtiofsd_start_time))
        found += [process for process in known if is_alive(*process)]
    user = user_of(directory)
    # A user namespace may have no user to spare. Then a process of that name may be one of another root's sandbox.
    if user != NOBODY:
        found += [each for each in processes_of(user, f"guest={container_id}".encode()) if each not in found]
    return found


def end_processes(directory: str, container_id: str) -> None:
    """End whatever runs of the sandbox at once, and wait for it.

    :raise DeadlineError: a process does not end.
    """
    for pid, start_time in sandbox_processes(directory, container_id):
        kill_process(pid, start_time)
