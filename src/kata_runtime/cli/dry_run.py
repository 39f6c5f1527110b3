"""--dry-run: a command does all its checks and prints the steps that it would take, without taking them."""

from __future__ import annotations

from kata_runtime.cli.streams import notify, write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.errors import OnlyPlannedError


def print_plan(planned: OnlyPlannedError) -> int:
    """Print the steps as one line of JSON, a list of strings, and the notes; return the exit status."""
    from kata_runtime.cli.network_json import compact

    if planned.notes:
        notify("; ".join(planned.notes))
    write_line(compact(planned.steps))
    return 0
