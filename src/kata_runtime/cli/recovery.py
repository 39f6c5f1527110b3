"""Who finishes or undoes what an interrupted command left: each kind of pending work has one recoverer."""

from __future__ import annotations

from kata_runtime.cli.streams import note
from kata_runtime.errors import HostError, KataError
from kata_runtime.sandbox.pending import subject_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.pending import Work
    from kata_runtime.sandbox.session import Session


# What the guest must consent to; everything else takes its kernel alone.
_CONSENT = "interface"


def recover(session: Session) -> None:
    """End all pending work.

    :raise KataError: host, QEMU or guest does not do its part.
    """
    for work in session.record.pending:
        _end(session, work, own=True)


def recover_for(session: Session, subject: str, *, changes: bool) -> None:
    """End the pending work that a command about ``subject`` needs ended, and of the rest what can be.

    A command that reads ends only work on its subject, and none that needs the guest's consent; what it cannot
    end is told. One that changes something fails for work on its own subject.

    :raise KataError: host, QEMU or guest does not do its part.
    """
    for work in session.record.pending:
        own = subject_of(work) == subject
        if not changes and (not own or subject == _CONSENT):
            continue
        try:
            _end(session, work, own=own)
        except KataError as error:
            if own and changes:
                raise
            note(f"unfinished work on {subject_of(work)} stays as it is: {error}")


def _end(session: Session, pending: Work, *, own: bool) -> None:
    kind = str(pending.get("kind"))
    match subject_of(pending):
        case "interface":
            from kata_runtime.network import pending_nics

            pending_nics.recover(session, pending, own=own)
        case "mirror":
            from kata_runtime.network import reconcile

            reconcile.recover(session, pending)
        case "routes":
            from kata_runtime.network import routes

            routes.recover(session, pending)
        case "ipvs":
            from kata_runtime.ipvs import commands

            commands.recover(session, pending)
        case _:
            raise HostError(
                f"sandbox {session.container_id} holds unfinished work of the unknown kind {kind!a}",
                hint="use the version of kata-runtime that began it, or delete --force the sandbox",
            )
