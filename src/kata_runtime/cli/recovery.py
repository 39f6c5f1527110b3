"""Who finishes or undoes what an interrupted command left: each kind of pending work has one recoverer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.errors import HostError

if TYPE_CHECKING:
    from kata_runtime.sandbox.session import Session


def recover(session: Session) -> None:
    """Bring the sandbox back to a state in which nothing is pending.

    :raise HostError: nobody knows this kind of work, as after a downgrade.
    """
    pending = session.record.pending
    if pending is None:
        return
    kind = str(pending.get("kind"))
    # A kind is the command group's noun, perhaps followed by a dot and a detail of its own.
    match kind.partition(".")[0]:
        case "interface":
            from kata_runtime.network import interfaces

            interfaces.recover(session, pending)
        case "mirror":
            from kata_runtime.network import reconcile

            reconcile.recover(session, pending)
        case "routes":
            from kata_runtime.network import routes

            routes.recover(session, pending)
        case "ipvs":
            from kata_runtime.ipvs import command

            command.recover(session, pending)
        case _:
            raise HostError(
                f"sandbox {session.container_id} holds unfinished work of the unknown kind {kind!a}",
                hint="use the version of kata-runtime that began it, or delete --force the sandbox",
            )
