"""The life-cycle commands: run, list, state, exec, kill and delete."""

from __future__ import annotations

from kata_runtime import fast_signal as signal
from kata_runtime.cli.sessions import lock_wait_of
from kata_runtime.cli.settings import config_path_of, root_of
from kata_runtime.cli.streams import note, notify, write_line, write_text
from kata_runtime.cli.text_table import text_table
from kata_runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.cli.argument_parser import Call


def run(call: Call) -> int:
    """Carry out a life-cycle command."""
    return _COMMANDS[call.command.words[0]](call)


def signal_of(text: str) -> int:
    """The number of a signal given as ``TERM``, ``SIGTERM`` or ``15``.

    :raise UsageError: there is no such signal.
    """
    from signal import Signals

    name = text.upper()
    try:
        if name.isascii() and name.isdecimal():
            # Includes real-time signals, which have no names.
            return int(next(number for number in signal.valid_signals() if number == int(name)))
        return Signals[name if name.startswith("SIG") else f"SIG{name}"].value
    except (KeyError, ValueError, StopIteration) as exc:
        raise UsageError(f"there is no signal {text!a}", hint="give a name such as TERM or a number") from exc


def _run(call: Call) -> int:
    from kata_runtime.sandbox import lifecycle
    from kata_runtime.sandbox.config import load_config

    if call.value("--bundle") is not None:
        from kata_runtime.cli import oci_commands

        return oci_commands.run_bundle(call)
    if call.value("--detach") is None:
        raise UsageError("run needs --detach", hint="a sandbox always runs in the background")
    config = load_config(config_path_of(call), notify)
    wanted = call.operands[0] if call.operands else None
    lifecycle.run(config, wanted, root_of(call), note, _announce)
    return 0


def _announce(container_id: str) -> None:
    from select import POLLOUT, poll

    from kata_runtime.sandbox.process import ENDING_SIGNALS

    # A signal interrupts the wait for a slow reader. Once the ID is written, the sandbox is not removed any more:
    # signals are blocked between the two, and a later one must not report that it was undone.
    output = poll()
    output.register(1, POLLOUT)
    output.poll()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        write_line(container_id)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        raise


def _list(call: Call) -> int:
    from kata_runtime.cli.network_json import compact
    from kata_runtime.oci.operations import list_states

    states = list_states(root_of(call), notify)
    if call.value("--quiet") is not None:
        write_text("".join(f"{state['id']}\n" for state in states))
    elif call.value("--format") == "json":
        write_line(compact(states))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE")]
        rows += [(str(s["id"]), str(s["pid"]), str(s["status"]), str(s["bundle"])) for s in states]
        write_text(text_table(rows))
    return 0


def _state(call: Call) -> int:
    from kata_runtime.cli.network_json import compact
    from kata_runtime.oci.operations import state

    write_line(compact(state(root_of(call), call.operands[0])))
    return 0


def _exec(call: Call) -> int:
    from kata_runtime.cli import oci_commands
    from kata_runtime.oci.operations import find_container
    from kata_runtime.sandbox import lifecycle

    container = find_container(root_of(call), call.operands[0])
    if container is not None:
        return oci_commands.execute(call, container)
    if call.options:
        option = next(iter(call.options))
        raise UsageError(f"exec: {option} is for containers of a bundle, and {call.operands[0]} is none")
    if len(call.operands) < 2:
        raise UsageError("exec lacks CMD", hint=f"usage: {call.command.usage}")
    return lifecycle.execute(root_of(call), call.operands[0], list(call.operands[1:]))


def _kill(call: Call) -> int:
    number = signal_of(call.operands[1]) if len(call.operands) > 1 else int(signal.SIGTERM)
    from kata_runtime.oci import operations
    from kata_runtime.sandbox import lifecycle

    root = root_of(call)
    container = operations.find_container(root, call.operands[0])
    if container is not None:
        operations.kill(root, container, number, everything=call.value("--all") is not None)
    else:
        lifecycle.kill(root, call.operands[0], number, lock_wait_of(call))
    return 0


def _delete(call: Call) -> int:
    from kata_runtime.oci.removal import delete

    delete(root_of(call), call.operands[0], lock_wait_of(call), force=call.value("--force") is not None)
    return 0


_COMMANDS: dict[str, Callable[[Call], int]] = {
    "run": _run,
    "list": _list,
    "state": _state,
    "exec": _exec,
    "kill": _kill,
    "delete": _delete,
}
