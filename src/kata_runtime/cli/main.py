"""The program: argv in, exit status out: 0 success, 1 failure, 2 invalid command line, 128+N ended by signal N."""

from __future__ import annotations

import os
import sys
from errno import EMFILE, ENFILE

from kata_runtime import __version__
from kata_runtime import fast_signal as signal
from kata_runtime.cli.argument_parser import Call, Help, Version, parse
from kata_runtime.cli.interrupted import Interrupted
from kata_runtime.cli.streams import (
    AnswerError,
    AnswerLostError,
    OutputClosedError,
    notify,
    occupy_standard_descriptors,
    write_line,
)
from kata_runtime.errors import KataError, UsageError
from kata_runtime.fast_contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def program() -> NoReturn:
    """Run the command line of this process, and end it by os._exit.

    sys.exit would finalize the interpreter, which takes a third of a short command's time and is not needed: all output
    is written with write(2), and the log's handlers flush each record.
    """
    os._exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    call: Call | None = None
    try:
        occupy_standard_descriptors()
        for number in _ENDING_SIGNALS:
            signal.signal(number, _interrupt)
        asked = parse(sys.argv[1:] if argv is None else argv)
        if isinstance(asked, Call):
            call = asked
            _start_log(call)
        status = _answer(asked)
        _restore_signals()
        _end_log(call, status, None)
    except (Exception, Interrupted) as exc:
        _restore_signals()
        status = _fail(exc, call)
    return status


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # A second signal ends the process at once; the next command on the sandbox then undoes the rest.
    _restore_signals()
    raise Interrupted(number)


def _restore_signals() -> None:
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _start_log(call: Call) -> None:
    if "--log" in call.settings or "--debug" in call.settings:
        from kata_runtime.cli.log import start_log

        start_log(call)


def _end_log(call: Call | None, status: int, exc: BaseException | None) -> None:
    if call is not None and ("--log" in call.settings or "--debug" in call.settings):
        from kata_runtime.cli.log import log_end

        log_end(status, exc)


def _fail(exc: BaseException, call: Call | None) -> int:
    """Print the result and message of a failed command; returns the exit status for ``exc``."""
    if isinstance(exc, AnswerLostError):
        status = _report(exc.reason, exc.outcome)
        _end_log(call, status, exc.reason)
        return status
    answer = "null"
    if isinstance(exc, AnswerError):
        answer = exc.answer
        exc = exc.reason
    has_answer = call is not None and call.command.words[0] == "kata-network" and call.command.words[1] != "show"
    if has_answer and not isinstance(exc, UsageError):
        # A failed command prints this result, also if a signal ended it; an invalid command line has no result.
        with suppress(OutputClosedError, KataError):
            write_line(answer)
    status = _report(exc, "")
    _end_log(call, status, exc)
    return status


def _answer(asked: Call | Help | Version) -> int:
    if isinstance(asked, Help):
        from kata_runtime.cli.help import help_text

        write_line(help_text(asked.words))
        return 0
    if isinstance(asked, Version):
        write_line(f"kata-runtime {__version__}")
        return 0
    return asked.command.handler(asked)


def _report(exc: BaseException, outcome: str) -> int:
    """Print one line on what ended the command, and its ``outcome``; returns the exit status."""
    if isinstance(exc, OutputClosedError):
        if outcome:
            notify(f"nobody reads the result; {outcome}")
        return 1
    if isinstance(exc, Interrupted):
        from signal import Signals

        # The signal may have arrived after the change was complete, and an interrupted deletion in a guest cannot be
        # undone: the next command on the container completes it.
        notify(f"ended by {Signals(exc.number).name}; its change is made whole or not at all")
        return 128 + exc.number
    if isinstance(exc, UsageError):
        notify(str(exc))
        return 2
    if isinstance(exc, KataError):
        notify(f"{exc}; {outcome}" if outcome else str(exc))
        return 1
    if isinstance(exc, MemoryError):
        notify("this command has too little memory; raise its limit (ulimit -v, memory.max) or free some")
        return 1
    if isinstance(exc, OSError) and exc.errno in (EMFILE, ENFILE):
        # Also an import needs a descriptor, wherever it happens.
        notify("this command may open too few files; raise its limit (ulimit -n) or the host's (fs.file-max)")
        return 1
    advice = "run it again with --debug --log FILE and report what FILE holds"
    notify(f"internal error: {type(exc).__name__}: {exc}; {advice}")
    return 1
