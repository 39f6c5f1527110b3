"""The use of host devices and ports by other sandboxes of the same root."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError
from kata_runtime.sandbox.identity import sandbox_ids
from kata_runtime.sandbox.process import is_alive
from kata_runtime.sandbox.record import load_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.sandbox.record import NicRecord, PortRecord


def user_of_device(root: str, container_id: str, namespace: str, device: str) -> str | None:
    """The other running container with a NIC on ``device`` of ``namespace``; NICs that are being added count."""
    return _user(root, container_id, lambda nic: (nic.namespace, nic.device) == (namespace, device))


def user_of_port(root: str, container_id: str, port: PortRecord) -> str | None:
    """The other running container with a NIC that is this port of Open vSwitch or Neutron, as ``user_of_device``."""
    identity = (port.ovsdb, port.port)
    return _user(root, container_id, lambda nic: nic.port is not None and (nic.port.ovsdb, nic.port.port) == identity)


def _user(root: str, container_id: str, is_used: Callable[[NicRecord], bool]) -> str | None:
    for other in sandbox_ids(root):
        if other == container_id:
            continue
        try:
            record = load_record(os.path.join(root, other))
        except (FileNotFoundError, HostError):
            # It is being created or deleted, or is damaged: commands on that sandbox report it, others need not fail.
            continue
        begun = [work.nic for work in record.pending if work.nic is not None]
        if any(map(is_used, (*record.nics, *begun))) and is_alive(record.pid, record.start_time):
            return other
    return None
