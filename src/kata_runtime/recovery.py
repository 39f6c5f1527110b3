"""Ends what interrupted commands left pending: each kind of work by the part that began it, imported only then."""

from __future__ import annotations

from kata_runtime.errors import KataError
from kata_runtime.sandbox.pending import is_pending
from kata_runtime.sandbox.record import WorkKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.sandbox.record import Work
    from kata_runtime.sandbox.session import Session

# What needs the guest's consent; everything else takes its kernel alone.
_CONSENT = WorkKind.ADD_NIC.subject


def recover(session: Session) -> None:
    """End all pending work.

    :raise KataError: host, QEMU or guest does not do its part.
    """
    for work in session.record.pending:
        _end(session, work, own=True)


def recover_for(session: Session, subject: str, notify: Callable[[str], None], *, changes: bool) -> None:
    """End the pending work that a command about ``subject`` needs ended, and of the rest what can be.

    A command that reads ends only work on its subject, and none that needs the guest's consent; ``notify`` is called
    for what it cannot end. One that changes something fails for work on its own subject.

    :raise KataError: host, QEMU or guest does not do its part.
    """
    for work in session.record.pending:
        own = work.kind.subject == subject
        if not changes and (not own or subject == _CONSENT):
            continue
        try:
            _end(session, work, own=own)
        except KataError as error:
            if own and changes:
                raise
            notify(f"unfinished work on {work.kind.subject} stays as it is: {error}")


def _end(session: Session, work: Work, *, own: bool) -> None:
    match work.kind:
        case WorkKind.ADD_NIC | WorkKind.DELETE_NIC:
            from kata_runtime.network import pending_nics

            pending_nics.recover(session, work, own=own)
        case WorkKind.MIRROR:
            from kata_runtime.network import reconcile

            reconcile.recover(session, work)
        case WorkKind.ROUTES:
            from kata_runtime.network import route_journal

            route_journal.recover(session)
        case WorkKind.IPVS:
            from kata_runtime.ipvs import commands

            commands.recover(session)
    if not is_pending(session.record, work):
        session.recovered.append(work)
