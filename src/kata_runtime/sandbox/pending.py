"""Work that a command began, named in the record until it is done or undone.

A piece of work is a mapping with a ``kind``: the subject of the command, perhaps followed by a dot and a detail. Work
that cannot be ended, as when a guest does not let go of a NIC, stays while other commands begin and end theirs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.sandbox.record import Record

    Work = Mapping[str, object]


def subject_of(work: Work) -> str:
    """What the work is about: ``interface`` of ``interface.add``."""
    return str(work.get("kind")).partition(".")[0]


def begun(record: Record, work: Work) -> Record:
    """The record with this work in it."""
    return record._replace(pending=(*record.pending, work))


def ended(record: Record, work: Work) -> Record:
    """The record without it."""
    return record._replace(pending=tuple(other for other in record.pending if other != work))
