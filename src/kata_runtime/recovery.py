"""Recovery of interrupted commands: finishes or undoes the pending work that a sandbox's record names.

Each kind of work is handled by the module that began it, which is imported only when such work is pending."""

from __future__ import annotations

from kata_runtime.errors import KataError
from kata_runtime.sandbox.pending import is_pending
from kata_runtime.sandbox.record import WorkKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.sandbox.record import Work
    from kata_runtime.sandbox.session import Session

# The subject whose work can wait for the guest: it must release a device. Other work needs only answers of its kernel.
_CONSENT = WorkKind.ADD_NIC.subject


def recover(session: Session) -> None:
    """Finish or undo all pending work.

    :raise KataError: host, QEMU or guest failed.
    """
    for work in session.record.pending:
        _end(session, work, own=True)


def recover_for(session: Session, subject: str, notify: Callable[[str], None], *, changes: bool) -> None:
    """Finish or undo pending work before a command about ``subject`` runs.

    A command that ``changes`` something handles all pending work, and fails if that is impossible for work on its own
    subject. A command that only reads handles work on its own subject, and none that can wait for the guest. Other
    failures are reported to ``notify``, and the work stays pending.

    :raise KataError: host, QEMU or guest failed.
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
    deleted = next((nic for nic in session.record.nics if nic.name == work.name), work.nic)
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
        # With the whole record of a deleted NIC, by which del-port knows it: a port has other names than its NIC.
        session.recovered.append(work._replace(nic=deleted))
