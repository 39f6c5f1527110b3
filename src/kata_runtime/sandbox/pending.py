"""Work that a command began, in the record until it is done or undone.

Work that cannot be ended, as when a guest does not let go of a NIC, stays while other commands begin and end theirs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.record import Record, Work


def begun(record: Record, work: Work) -> Record:
    """The record with this work in it."""
    return record._replace(pending=(*record.pending, work))


def ended(record: Record, work: Work) -> Record:
    """The record without it."""
    return record._replace(pending=tuple(other for other in record.pending if other != work))


def is_pending(record: Record, work: Work) -> bool:
    """Whether the work is still to be done, also when the guest has refused it meanwhile."""
    return any(other._replace(refused=work.refused) == work for other in record.pending)
