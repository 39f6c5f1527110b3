"""The events of a running container, in the format of ``runc events``: stats, oom; and exit at its end."""

from __future__ import annotations

import os
import select

from kata_runtime.errors import ContainerError, HostError, KataError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.oci.operations import last_usage, usage
from kata_runtime.oci.statistics import statistics
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import process_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_runtime.guest.crun import Usage
    from kata_runtime.oci.container import Container


def events(root: str, container: Container, interval: float) -> Iterator[dict[str, object]]:
    """Stats now and every ``interval`` seconds, oom when the OOM killer has killed processes, exit at the end.

    :raise ContainerError: it does not run. :raise GuestError, DeadlineError: its guest does not answer.
    """
    killed = _killed(usage(root, container))
    # ContainerError, HostError: it ended between two readings.
    with (
        suppress(ContainerError, HostError),
        process_descriptor(container.shim, container.shim_start_time) as ended,
    ):
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        while True:
            found = usage(root, container)
            yield from _oom(container, killed, found)
            killed = _killed(found)
            yield statistics(container.container_id, found)
            if poller.poll(interval * 1000):
                break
    # The container's cgroup exists until it is deleted, and has the count of OOM kills.
    with suppress(KataError):
        yield from _oom(container, killed, last_usage(root, container))
    yield _exit(root, container.container_id)


def _exit(root: str, container_id: str) -> dict[str, object]:
    """The last event, with the exit status that the shim noted unless it was killed itself."""
    event: dict[str, object] = {"type": "exit", "id": container_id}
    # ValueError: the disk was full.
    with suppress(OSError, ValueError), open(SandboxPaths(os.path.join(root, container_id)).exit_status, "rb") as file:
        event["data"] = {"exitStatus": int(file.read())}
    return event


def _oom(container: Container, killed: int, found: Usage) -> Iterator[dict[str, object]]:
    if _killed(found) > killed:
        yield {"type": "oom", "id": container.container_id}


def _killed(found: Usage) -> int:
    return found.memory_events.get("oom_kill", 0)
