"""The use of host devices by other sandboxes of the same root."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError
from kata_runtime.sandbox.identity import sandbox_ids
from kata_runtime.sandbox.process import is_alive
from kata_runtime.sandbox.record import load_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.record import Record


def user_of_device(root: str, container_id: str, namespace: str, device: str) -> str | None:
    """The other running container with a NIC on ``device`` of ``namespace``; NICs that are being added count."""
    for other in sandbox_ids(root):
        if other == container_id:
            continue
        try:
            record = load_record(os.path.join(root, other))
        except (FileNotFoundError, HostError):
            # It is being created or deleted, or is damaged: commands on that sandbox report it, others need not fail.
            continue
        if (namespace, device) in _devices(record) and is_alive(record.pid, record.start_time):
            return other
    return None


def _devices(record: Record) -> set[tuple[str, str]]:
    begun = [work.nic for work in record.pending if work.nic is not None]
    return {(nic.namespace, nic.device) for nic in (*record.nics, *begun)}
