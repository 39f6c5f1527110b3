"""The OCI runtime command line that engines call (runc(8)), also usable by hand."""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime.cli.settings import config_path_of, root_of
from kata_runtime.cli.streams import notify, read_input, write_line, write_text
from kata_runtime.errors import ContainerError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.oci.container import Container
    from kata_runtime.oci.create import CreateContext, CreateRequest

_EVENTS_SECONDS = 5.0  # as in runc


def run(call: Call) -> int:
    """Carry out a command of an engine."""
    return _COMMANDS[call.command.words[0]](call)


def run_bundle(call: Call) -> int:
    """Create and start a container; without --detach wait for its end, delete it, and return its exit status."""
    from kata_runtime.oci.run import run_attached, run_detached
    from kata_runtime.sandbox.identity import new_id

    _refuse_descriptors(call)
    container_id = call.operands[0] if call.operands else new_id()
    request = _request(call, container_id)
    if call.value("--detach") is None:
        return run_attached(request, _create_context(call))
    run_detached(request, _create_context(call))
    if not call.operands:
        write_line(container_id)
    return 0


def execute(call: Call, container: Container) -> int:
    """Run a command in a container."""
    from kata_runtime.oci import exec_process

    _refuse_descriptors(call)
    process = call.value("--process")
    if (process is None) == (len(call.operands) < 2):
        raise UsageError("exec needs either CMD or --process", hint=f"usage: {call.command.usage}")
    request = exec_process.ExecRequest(
        process=_absolute(process),
        argv=call.operands[1:],
        directory=call.value("--cwd") or "",
        environment=call.options.get("--env", ()),
        user=call.value("--user") or "",
        groups=call.options.get("--additional-gids", ()),
        capabilities=call.options.get("--cap", ()),
        cgroup=call.value("--cgroup") or "",
        no_new_privileges=call.value("--no-new-privs") is not None,
        tty=call.value("--tty") is not None,
        detach=call.value("--detach") is not None,
        pid_file=_absolute(call.value("--pid-file")),
        console_socket=_absolute(call.value("--console-socket")),
        reason_log=_absolute(call.settings.get("--log")),
    )
    return exec_process.execute(root_of(call), container, request)


def _create(call: Call) -> int:
    """Create a container whose process waits for start."""
    from kata_runtime.oci.create import create

    _refuse_descriptors(call)
    create(_request(call, call.operands[0]), _create_context(call))
    return 0


def _request(call: Call, container_id: str) -> CreateRequest:
    from kata_runtime.oci.create import CreateRequest

    return CreateRequest(
        container_id,
        _absolute(call.value("--bundle") or "."),
        pid_file=_absolute(call.value("--pid-file")),
        console_socket=_absolute(call.value("--console-socket")),
        systemd_cgroup="--systemd-cgroup" in call.settings,
        reason_log=_absolute(call.settings.get("--log")),
    )


def _start(call: Call) -> int:
    """Start a created container's program."""
    from kata_runtime.oci import operations

    operations.start(root_of(call), _container(call), notify)
    return 0


def _pause(call: Call) -> int:
    """Freeze a container's processes."""
    from kata_runtime.oci import operations

    operations.pause(root_of(call), _container(call))
    return 0


def _resume(call: Call) -> int:
    """Thaw a container's processes."""
    from kata_runtime.oci import operations

    operations.resume(root_of(call), _container(call))
    return 0


def _update(call: Call) -> int:
    """Change a container's limits."""
    from kata_runtime.oci import operations
    from kata_runtime.oci.json_object import parse_json_object

    path = call.value("--resources")
    if path is None:
        raise UsageError("update needs --resources", hint="a file with linux.resources, or - for standard input")
    resources = parse_json_object(read_input(path), "--resources")
    operations.update(root_of(call), _container(call), resources)
    return 0


def _processes(call: Call) -> int:
    """List a container's processes: as JSON, for engines, those on this host; as a table those in its guest."""
    from kata_runtime.oci import operations

    container = _container(call)
    if call.value("--format") == "json":
        operations.require_alive(container)
        write_line(fast_json.dumps([container.shim]))
    else:
        rows = [("PID", "USER", "STAT", "COMMAND")]
        rows += [(str(row.pid), *row[1:]) for row in operations.guest_processes(root_of(call), container)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [" ".join([*map(str.ljust, row, widths), row[3]]) for row in rows]
        write_text("".join(f"{line}\n" for line in lines))
    return 0


def _events(call: Call) -> int:
    """Print a container's statistics once, or a line of JSON for each event until it ends."""
    from kata_runtime.oci import operations
    from kata_runtime.oci.event_stream import events
    from kata_runtime.oci.statistics import statistics

    interval = _interval(call.value("--interval"))
    container = _container(call)
    if call.value("--stats") is not None:
        usage = operations.usage(root_of(call), container)
        write_line(_line(statistics(container.container_id, usage)))
        return 0
    operations.require_alive(container)
    for event in events(root_of(call), container, interval):
        write_line(_line(event))
    return 0


def _line(event: dict[str, object]) -> str:
    return fast_json.dumps(event)


def _interval(given: str | None) -> float:
    """Parse seconds, with or without the unit that runc requires.

    :raise UsageError: it is not a number of seconds.
    """
    if given is None:
        return _EVENTS_SECONDS
    text = given.removesuffix("s")
    if text.isascii() and text.replace(".", "", 1).isdecimal() and len(text) <= 12 and 0 < float(text) <= 86_400:
        return float(text)
    raise UsageError(f"events: --interval is {given!a}", hint="it must be a number of seconds above 0, such as 5 or 5s")


def _features(call: Call) -> int:
    """Print the features document."""
    del call
    import json

    from kata_runtime.oci.features import FEATURES

    write_line(json.dumps(FEATURES, indent=4))
    return 0


def _spec(call: Call) -> int:
    """Write the default config.json."""
    from kata_runtime.oci.features import write_spec

    write_spec(_absolute(call.value("--bundle") or "."))
    return 0


def _container(call: Call) -> Container:
    from kata_runtime.oci.operations import find_container

    found = find_container(root_of(call), call.operands[0])
    if found is None:
        raise ContainerError(
            f"{call.operands[0]} is a sandbox without a bundle, which {call.command.name} cannot act on",
            container=call.operands[0],
        )
    return found


def _create_context(call: Call) -> CreateContext:
    from kata_runtime.oci.create import CreateContext
    from kata_runtime.sandbox.config import load_config

    # Standard error belongs to the container: messages that are no errors are only logged.
    return CreateContext(root_of(call), lambda: load_config(config_path_of(call), _note), _note)


def _note(message: str) -> None:
    import logging

    logging.getLogger("kata_runtime").info("%s", message)


def _refuse_descriptors(call: Call) -> None:
    if call.value("--preserve-fds") not in (None, "0"):
        raise UsageError("--preserve-fds: descriptors of this host cannot reach into a VM", hint="0 is possible")


def _absolute(path: str | None) -> str:
    """Make a path absolute, since the shim has another working directory."""
    return os.path.abspath(path) if path else ""


_COMMANDS: dict[str, Callable[[Call], int]] = {
    "create": _create,
    "start": _start,
    "ps": _processes,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "features": _features,
    "spec": _spec,
}
