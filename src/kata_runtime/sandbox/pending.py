"""Pending work in a sandbox's record, where it is named until it is finished or undone.

Work that cannot be finished, as when a guest does not release a NIC, stays while other commands begin and end theirs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.record import Record, Work


def begun(record: Record, work: Work) -> Record:
    """The record with this work added."""
    return record._replace(pending=(*record.pending, work))


def ended(record: Record, work: Work) -> Record:
    """The record without this work."""
    return record._replace(pending=tuple(other for other in record.pending if other != work))


def is_pending(record: Record, work: Work) -> bool:
    """Whether the work is still in the record, with or without a refusal by the guest."""
    return any(other._replace(refused=work.refused) == work for other in record.pending)
