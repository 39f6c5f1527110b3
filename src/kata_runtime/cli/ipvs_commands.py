"""kata-ipvs: virtual servers and tracked connections of a running container."""

from __future__ import annotations

import gc

from kata_runtime.cli.progress_meter import Meter
from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.spool import Spool
from kata_runtime.cli.streams import notify, read_input
from kata_runtime.errors import OnlyPlannedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call

# A batch of the configured 20,000 rules has about 2 MB.
_RULES_LIMIT = 64 * 1024 * 1024  # bytes


def run(call: Call) -> int:
    """Carry out a kata-ipvs command."""
    try:
        return _run(call)
    except OnlyPlannedError as planned:
        from kata_runtime.cli.dry_run import print_plan

        return print_plan(planned)


def _run(call: Call) -> int:
    if call.command.words[1] == "cleanup":
        return _cleanup(call)
    if call.command.words[1] == "top":
        from kata_runtime.optional_packages import RICH, require

        require(RICH)
        from kata_runtime.cli import ipvs_top

        return ipvs_top.run(call)
    # Tens of thousands of rules, none of them in a cycle: collections would take a tenth of the time of parsing them.
    gc.disable()
    parameters = call.value("--parameters")
    restore = call.value("--restore")
    if (parameters is None) == (restore is None):
        given = "neither --parameters nor --restore" if parameters is None else "both --parameters and --restore"
        raise UsageError(f"kata-ipvs ipvsadm has {given}", hint="give one of the two")
    if restore is not None:
        return _restore(call, restore)
    if call.value("--replace") is not None:
        raise UsageError("kata-ipvs ipvsadm has --replace without --restore")
    return _single(call, parameters or "")


def _single(call: Call, parameters: str) -> int:
    from kata_runtime.ipvs.commands import is_question, read_command, run_ipvsadm

    asked = read_command(parameters)
    with Spool() as spool:
        with session_of(call, "ipvs", changes=not is_question(asked)) as session:
            run_ipvsadm(session, asked, output=spool.add, fmt=call.value("--format") or "text")
        spool.write_out()
    return 0


def _restore(call: Call, path: str) -> int:
    from kata_runtime.ipvs.rules_error import RulesError

    rules = read_input(path, _RULES_LIMIT)
    name = "standard input" if path == "-" else path
    try:
        with session_of(call, "ipvs") as session, Meter("rules") as meter:
            session.channel()  # an idle guest needs some ms for its first answer, as do these modules
            from kata_runtime.ipvs.commands import run_restore

            run_restore(session, name, rules, replace=call.value("--replace") is not None, progress=meter.show)
    except RulesError as error:
        for problem in error.problems:
            notify(problem)
        raise
    return 0


def _cleanup(call: Call) -> int:
    from kata_runtime.conntrack.cleanup import count_matching, delete_matching, parse_filter

    parameters = call.value("--parameters")
    if parameters is None:
        raise UsageError("kata-ipvs cleanup lacks --parameters", hint=f"usage: {call.command.usage}")
    selection = parse_filter(parameters)
    with session_of(call, "ipvs") as session:
        act = count_matching if session.dry_run else delete_matching
        count = act(session.channel(), selection)
    entries = f"{count} connection-tracking {'entry' if count == 1 else 'entries'}"
    if session.dry_run:
        raise OnlyPlannedError([f"conntrack: delete {entries}"])
    notify(f"{entries} deleted")
    return 0
