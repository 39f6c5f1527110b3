"""kata-network show: the topology of a container's network, from its guest to the host's bridges."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.settings import ovsdb_of, root_of
from kata_runtime.cli.streams import notify, write_line, write_text
from kata_runtime.errors import ContainerError, KataError
from kata_runtime.network.topology import look_into_guest, topology
from kata_runtime.sandbox.identity import sandbox_ids, sandbox_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.network.topology import GuestView, Topology
    from kata_runtime.sandbox.record import Record

_INTERVAL = 1.0  # seconds between the two snapshots from which rates are computed


def run(call: Call) -> int:
    """Print the tree, the JSON document, the graph or its picture."""
    fmt = call.value("--format") or "text"
    if fmt == "text":
        # Checked first, so that a missing package is reported at once.
        from kata_runtime.optional_packages import RICH, require

        require(RICH)
    given = call.value("--interval")
    shown = _gather(call, _INTERVAL if given is None else float(given))
    match fmt:
        case "json":
            from kata_runtime.cli.network_json import compact
            from kata_runtime.cli.topology_json import document

            write_line(compact([document(each) for each in shown]))
        case "dot":
            from kata_runtime.cli.topology_dot import dot

            write_text(dot(shown))
        case "svg":
            from kata_runtime.cli.topology_dot import dot, svg

            write_text(svg(dot(shown)))
        case _:
            from kata_runtime.cli.topology_tree import drawn

            write_text(drawn(shown))
    return 0


def _gather(call: Call, interval: float) -> Sequence[Topology]:
    """Take two snapshots of each container to compute rates; no lock is held in between."""
    ovsdb = ovsdb_of(call)
    first = _look(call)
    if not interval or not first:
        return [topology(record, view, ovsdb) for record, view in first.values()]
    # A signal interrupts the wait.
    select.select([], [], [], interval)
    second = _look(call)
    return [
        topology(record, view, ovsdb, first[name][1] if name in first else None)
        for name, (record, view) in second.items()
    ]


def _look(call: Call) -> dict[str, tuple[Record, GuestView]]:
    """Snapshots of the containers' guests; if no container is named, of all that are running."""
    if call.operands:
        with session_of(call, "interface", changes=False) as session:
            return {session.container_id: (session.record, look_into_guest(session, time.monotonic()))}
    found: dict[str, tuple[Record, GuestView]] = {}
    root = root_of(call)
    for name in dict.fromkeys(sandbox_of(root, each) for each in sandbox_ids(root)):
        try:
            with session_of(call._replace(operands=[name]), "interface", changes=False) as session:
                found[name] = (session.record, look_into_guest(session, time.monotonic()))
        except ContainerError:
            continue  # it is not running
        except KataError as error:
            notify(f"container {name} is left out: {error}")
    return found
