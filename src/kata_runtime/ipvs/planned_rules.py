"""Changes of the virtual servers, as text for dry runs."""

from __future__ import annotations

from kata_runtime.errors import ConflictError, OnlyPlannedError
from kata_runtime.ipvs.engine import describe
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    Clear,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    SetTimeouts,
    StartDaemon,
    Zero,
)
from kata_runtime.ipvs.rules import refusal, touched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.ipvs.engine import Engine
    from kata_runtime.ipvs.model import Change, Rule


def plan_change(engine: Engine, change: Change) -> None:
    """End the dry run of a single command.

    :raise OnlyPlannedError: always, when the table admits it. :raise ConflictError: it does not.
    """
    rules: tuple[type[Rule], ...] = (AddService, EditService, DeleteService, AddServer, EditServer, DeleteServer)
    if isinstance(change, rules):
        reason = refusal(engine.table(touched([change])), change)
        if reason:
            raise ConflictError(reason, hint="-L shows what there is")
    raise OnlyPlannedError([step(change)])


def step(change: Change) -> str:
    """One change, for example ``ipvs: add service TCP 10.0.0.1:80, scheduler rr``."""
    return f"ipvs: {_described(change)}"


def _described(change: Change) -> str:
    match change:
        case AddService(spec) | EditService(spec):
            return f"{_verb(change)} {describe(change)}, scheduler {spec.scheduler}"
        case AddServer(_, server) | EditServer(_, server):
            return f"{_verb(change)} {describe(change)}, weight {server.weight}"
        case DeleteServer() | DeleteService():
            return f"delete {describe(change)}"
        case Clear():
            return "delete all services"
        case Zero(key):
            return f"zero the counters of {'all services' if key is None else key.description}"
        case SetTimeouts():
            return f"set {describe(change)}"
        case StartDaemon():
            return f"start {describe(change)}"
        case _:
            return describe(change)


def _verb(change: Change) -> str:
    return "add" if isinstance(change, AddService | AddServer) else "edit"
