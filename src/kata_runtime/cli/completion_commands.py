"""completion: prints the scripts for shells, and candidates for them."""

from __future__ import annotations

from kata_runtime.cli.streams import write_text
from kata_runtime.errors import KataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call


def run(call: Call) -> int:
    """Print a script, or candidates."""
    verb = call.command.words[1]
    if verb != "candidates":
        from kata_runtime.cli.completion_scripts import SCRIPTS

        write_text(SCRIPTS[verb])
        return 0
    from kata_runtime.cli.completion import complete

    try:
        lines = complete(call.operands)
    except (KataError, OSError):
        # An error message would appear in the middle of the user's command line.
        lines = []
    write_text("".join(f"{line}\n" for line in lines))
    return 0
