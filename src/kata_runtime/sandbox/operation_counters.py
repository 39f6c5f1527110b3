"""Counters for metrics: how often commands changed a sandbox, how long that took and how often it failed.

A file of fixed size in the sandbox's directory has a slot of 128 bytes for each kind of command. A command reads and
writes its slot, which costs four system calls and no fsync. A slot is within one page, so that a command that is
killed leaves it either unchanged or updated. A crash of the host can lose counts, and an invalid slot counts from 0
again: no command ever fails for it. Rejected: the record (it is written with fsync, and before the work), and a file
that commands append to (it would have to be truncated, and readers would have to read all of it).
"""

from __future__ import annotations

import os
import struct
import time

from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.lock import LockFile, LockWait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Counters of a root, since sandboxes that did not boot leave no directory. The file is created when metrics are first
# read, so that a failed command leaves nothing behind where they are not used.
_ROOT_NAME = ".operations"
_LOCK_SECONDS = 1.0

BOOT = "boot"
OPERATIONS = (
    BOOT, "add-iface", "del-iface", "add-route", "del-route", "update-routes", "ipvsadm", "restore", "cleanup",
    "add-port", "del-port",
)  # fmt: skip
# Upper bounds of the buckets in seconds; the last bucket has none.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_SLOT_BYTES = 128
_SLOT = struct.Struct(
    f"=QQd{len(BOUNDS) + 1}Q"
)  # a slot: magic number, failures, total seconds of the successes, successes by bucket
_MAGIC = int.from_bytes(b"ktops\0\0\1", "little")


class Counts(NamedTuple):
    """``buckets`` are successes by duration, up to each of ``BOUNDS`` and longer; ``seconds`` is their total."""

    failures: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)


@contextmanager
def counted(path: str, operation: str) -> Iterator[None]:
    """Count the block as ``operation`` in the file ``path``, a failure when an exception ends it.

    The caller holds the lock of the sandbox or root. Unknown operations are not counted.
    """
    began = time.monotonic()
    is_failure = True
    try:
        yield
        is_failure = False
    finally:
        count(path, operation, time.monotonic() - began, is_failure=is_failure)


def count(path: str, operation: str, seconds: float, *, is_failure: bool) -> None:
    """Add one to the counts of an operation; failures to write the file are ignored."""
    if operation not in OPERATIONS:
        return
    place = OPERATIONS.index(operation) * _SLOT_BYTES
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            before = _unpack(os.pread(opened, _SLOT.size, place))
            os.pwrite(opened, _pack(_added(before, seconds, is_failure=is_failure)), place)
        finally:
            os.close(opened)
    except OSError:
        return


def count_for_root(root: str, operation: str, seconds: float, *, is_failure: bool) -> None:
    """Count an operation for a root, if its metrics have ever been read.

    :raise HostError, DeadlineError: its counts cannot be locked.
    """
    path = os.path.join(root, _ROOT_NAME)
    if not os.path.exists(path):
        return
    lock = LockFile(path)
    try:
        if lock.acquire(LockWait(_LOCK_SECONDS), "the counts of boots"):
            count(path, operation, seconds, is_failure=is_failure)
    finally:
        lock.close()


def read_root_counts(root: str) -> dict[str, Counts]:
    """The counts of a root, whose file is created if it is missing; none if the root does not exist."""
    path = os.path.join(root, _ROOT_NAME)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError:
        return {}
    return read_counts(path)


def read_counts(path: str) -> dict[str, Counts]:
    """The counts of each operation that has any; none if the file does not exist."""
    try:
        with open(path, "rb") as file:
            data = file.read(len(OPERATIONS) * _SLOT_BYTES)
    except OSError:
        return {}
    slots = (data[start : start + _SLOT.size] for start in range(0, len(data), _SLOT_BYTES))
    found = {operation: _unpack(slot) for operation, slot in zip(OPERATIONS, slots, strict=False)}
    return {operation: counts for operation, counts in found.items() if counts != Counts()}


def _added(before: Counts, seconds: float, *, is_failure: bool) -> Counts:
    if is_failure:
        return before._replace(failures=before.failures + 1)
    place = next((number for number, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
    buckets = (*before.buckets[:place], before.buckets[place] + 1, *before.buckets[place + 1 :])
    return before._replace(seconds=before.seconds + seconds, buckets=buckets)


def _pack(counts: Counts) -> bytes:
    return _SLOT.pack(_MAGIC, counts.failures, counts.seconds, *counts.buckets)


def _unpack(slot: bytes) -> Counts:
    if len(slot) != _SLOT.size:
        return Counts()
    magic, failures, seconds, *buckets = _SLOT.unpack(slot)
    # False for NaN, too.
    if magic != _MAGIC or not 0 <= seconds < 1e12 or max(failures, *buckets) >= 1 << 53:
        return Counts()
    return Counts(failures, seconds, tuple(buckets))
