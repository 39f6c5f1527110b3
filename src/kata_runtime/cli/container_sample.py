"""Collects the data for metrics from each container.

The deadlines for a container's lock and its guest's answers are short, so that a scrape neither hangs nor delays other
commands on the container.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import ContainerError, DeadlineError, HostError, KataError, KernelError
from kata_runtime.guest.answer_limits import DEFAULT
from kata_runtime.ipvs.codec import FAMILY_NAME
from kata_runtime.ipvs.engine import Engine
from kata_runtime.ipvs.sockopt_table import ServerDetails
from kata_runtime.netlink.generic import find_family
from kata_runtime.network.topology import guest_nic, look_into_guest, shown_nics
from kata_runtime.sandbox.identity import sandbox_ids, sandbox_of
from kata_runtime.sandbox.lifecycle import is_held
from kata_runtime.sandbox.lock import LockWait
from kata_runtime.sandbox.operation_counters import read_counts
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import is_alive
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_runtime.ipvs.model import Service
    from kata_runtime.network.topology import GuestNic
    from kata_runtime.sandbox.operation_counters import Counts
    from kata_runtime.sandbox.record import NicRecord, Record
    from kata_runtime.sandbox.session import Session

LOCK_SECONDS = 0.5
_GUEST_SECONDS = 3.0
# Deadline of a guest's answers: those on 20,000 virtual servers take 1.5 s without KVM.
_TABLE_SECONDS = 6.0
_LIMITS = DEFAULT._replace(
    connect_seconds=_GUEST_SECONDS,
    request_seconds=_GUEST_SECONDS,
    answer_seconds=_TABLE_SECONDS,
    exchange_seconds=_TABLE_SECONDS,
)
# Deadline of a scrape, after which no further guest is asked: Prometheus waits ten seconds by default.
_ALL_SECONDS = 8.0
_AT_ONCE = 8

RUNNING, BUSY, SILENT, STOPPED, UNREADABLE = "running", "busy", "silent", "stopped", "unreadable"
STATUSES = (RUNNING, BUSY, SILENT, STOPPED, UNREADABLE)


class Sample(NamedTuple):
    """A snapshot of a container.

    ``status`` is RUNNING when its guest answered, BUSY when another command worked on it, SILENT when its guest did
    not answer in time, STOPPED when its VM has ended, UNREADABLE when its record cannot be read. ``nics`` and
    ``services`` are empty unless it is RUNNING; ``services`` is None for a guest without IPVS.
    """

    container: str
    status: str
    record: Record | None = None
    nics: Sequence[tuple[NicRecord, GuestNic | None]] = ()
    services: Sequence[Service] | None = None
    operations: Mapping[str, Counts] = {}


def samples(root: str) -> list[Sample]:
    """Sample all containers of a root, by ID, several at a time.

    :raise HostError: the directory cannot be read.
    """
    names = list(dict.fromkeys(sandbox_of(root, name) for name in sandbox_ids(root)))
    until = time.monotonic() + _ALL_SECONDS
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return [found for found in threads.map(partial(sample, root, until=until), names) if found is not None]


def sample(root: str, container: str, *, until: float) -> Sample | None:
    """Sample a container until ``until`` of the monotonic clock; None if it was deleted meanwhile."""
    directory = os.path.join(root, container)
    try:
        record = load_record(directory)
    except FileNotFoundError:
        return _without_record(directory, container)
    except HostError:
        return Sample(container, UNREADABLE)
    found = Sample(container, STOPPED, record, operations=read_counts(SandboxPaths(str(directory)).operations))
    if not is_alive(record.pid, record.start_time):
        return found
    if time.monotonic() > until:
        return found._replace(status=SILENT)
    is_held = False
    try:
        with open_session(root, container, _leave_pending, LockWait(LOCK_SECONDS)) as session:
            is_held = True
            return _looked_into(session, found)
    except ContainerError:
        return found
    except DeadlineError:
        return found._replace(status=SILENT if is_held else BUSY)
    except KataError:
        return found._replace(status=SILENT)


def _without_record(directory: str, container: str) -> Sample | None:
    """A container whose ``run`` is about to write the record, or was killed before it did."""
    try:
        return Sample(container, BUSY if is_held(directory, container) else STOPPED)
    except ContainerError:
        return None


def _leave_pending(_session: Session) -> None:
    """Recover nothing: pending work is left to the next command that changes something."""


def _looked_into(session: Session, found: Sample) -> Sample:
    session.limits = _LIMITS
    view = look_into_guest(session, time.monotonic(), routes=False)
    nics = [(nic, guest_nic(view, nic)) for nic in shown_nics(session.record)]
    return found._replace(status=RUNNING, record=session.record, nics=nics, services=_services(session))


def _services(session: Session) -> Sequence[Service] | None:
    """The virtual servers; None if the guest has not loaded IPVS, which is not loaded for this."""
    channel = session.channel()
    try:
        engine = Engine(channel, find_family(channel, FAMILY_NAME).id)
    except KernelError:
        return None
    return list(engine.services(engine.heads(), ServerDetails(statistics=True, tunnels=False)))
