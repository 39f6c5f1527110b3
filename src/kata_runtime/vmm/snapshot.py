"""The state of a machine's devices, saved and loaded without the guest's memory (QEMU's docs/devel/migration.rst).

QEMU omits shared memory from the stream (QAPI: MigrationCapability, x-ignore-shared): the caller copies the file behind
that memory when it saves, and provides a copy when it loads. A stream that includes the memory takes twice the time to
load, and touches every page of the guest.
"""

from __future__ import annotations

import time

from kata_runtime.errors import QemuError
from kata_runtime.fast_contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_runtime.vmm.monitor import Monitor

SAVE_SECONDS = 10.0
LOAD_SECONDS = 10.0

_NAME = "snapshot"
_CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},  # the event MIGRATION reports the end, so that nothing polls
]


@contextmanager
def stopped(monitor: Monitor) -> Iterator[None]:
    """Stop the machine while the context lasts.

    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer.
    """
    monitor.execute("stop")
    try:
        yield
    finally:
        resume(monitor)


def save_devices(monitor: Monitor, file: int) -> None:
    """Write the state of a stopped machine's devices (0.5 MB) to the open ``file``.

    :raise QemuError: QEMU refused or failed. :raise DeadlineError: it takes too long.
    """
    _transfer(monitor, "migrate", file, SAVE_SECONDS)


def load_devices(monitor: Monitor, file: int) -> None:
    """Load what ``save_devices`` wrote into a machine started with ``-incoming defer``; it stays stopped.

    Its memory must be there already.

    :raise QemuError: QEMU refused or failed; it may have ended. :raise DeadlineError: it takes too long.
    """
    _transfer(monitor, "migrate-incoming", file, LOAD_SECONDS)


def resume(monitor: Monitor) -> None:
    """Let a machine run that was stopped, or was stopped when it was saved.

    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer.
    """
    monitor.execute("cont")


def _transfer(monitor: Monitor, command: str, file: int, seconds: float) -> None:
    monitor.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
    monitor.send_fd(file, _NAME)
    end = time.monotonic() + seconds
    with monitor.listen("MIGRATION") as events:
        monitor.execute(command, {"uri": f"fd:{_NAME}"})
        data = events.wait(
            lambda data: data.get("status") in ("completed", "failed"),
            end - time.monotonic(),
            awaited=f"the end of QEMU's {command}",
        )
    if data.get("status") != "completed":
        raise QemuError(f"QEMU could not {command} a machine's devices", command=command)
