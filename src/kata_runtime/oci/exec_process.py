"""Runs commands in an engine's running container: attached to this process, or detached with a shim of their own."""

from __future__ import annotations

import os

from kata_runtime.errors import ContainerError, DeadlineError, GuestError, InputError, KataError
from kata_runtime.fast_contextlib import ExitStack
from kata_runtime.guest.crun import exec_request
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.oci import container as status_of
from kata_runtime.oci.bundle import CONFIG
from kata_runtime.oci.guest_config import guest_process
from kata_runtime.oci.json_object import JsonObject, read_json_file
from kata_runtime.oci.pid_file import write_pid_file
from kata_runtime.oci.process_check import ID_MAX, check_process
from kata_runtime.oci.shim import Shim, ShimRequest, forward_signals
from kata_runtime.oci.terminal import raw_terminal, terminal_size
from kata_runtime.sandbox import cgroup
from kata_runtime.sandbox.confinement import THREADS
from kata_runtime.sandbox.guest_command import forwarded_signals, free_port
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import await_end
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.stream_relay import RefusedError, Relay, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.oci.container import Container
# A shim ends this soon after its container.
_ENDING_SECONDS = 0.1


class ExecRequest(NamedTuple):
    """A command: an OCI process object in the file ``process``, or ``argv`` and the other options."""

    process: str = ""
    argv: Sequence[str] = ()
    directory: str = ""
    environment: Sequence[str] = ()
    user: str = ""
    groups: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    cgroup: str = ""
    no_new_privileges: bool = False
    tty: bool = False
    detach: bool = False
    pid_file: str = ""
    console_socket: str = ""
    reason_log: str = ""


def execute(root: str, container: Container, request: ExecRequest) -> int:
    """Run a command in a container; returns its exit status, or 0 at once when it is detached.

    :raise ContainerError: the container does not run. :raise InputError: the process is invalid.
    :raise GuestError: crun refused, with crun's message.
    """
    status = container.current_status()
    if status not in (status_of.RUNNING, status_of.CREATED):
        raise ContainerError(
            f"container {container.container_id} is {status}, not running", container=container.container_id
        )
    if ".." in request.cgroup.split("/"):
        raise InputError(f"--cgroup: {request.cgroup!a} is no path within the container's cgroup")
    process = _process(container, request)
    terminal = bool(process.get("terminal"))
    if request.console_socket and not terminal:
        raise InputError("there is a --console-socket and the process has no terminal")
    if request.detach or request.console_socket:
        return _detached(root, container, request, process, terminal=terminal)
    # The engine identifies the command with this process.
    write_pid_file(request.pid_file, os.getpid())
    return _attached(root, container, request, process, terminal=terminal)


def _process(container: Container, request: ExecRequest) -> dict[str, object]:
    if request.process:
        given = read_json_file(request.process, "the process")
        check_process(given)
        process = guest_process(given.fields)
        if request.tty:
            process["terminal"] = True
        return process
    # The defaults are those of the container's own process; engines keep the bundle while it runs.
    config = read_json_file(os.path.join(container.bundle, CONFIG), CONFIG)
    process = guest_process(config.child("process").fields)
    environment = [*config.child("process").texts("env"), *request.environment]
    process |= {"args": list(request.argv), "env": environment, "terminal": request.tty}
    if request.directory:
        process["cwd"] = request.directory
    user = config.child("process").child("user")
    process["user"] = user.fields | _user(request, user)
    if request.capabilities:
        process["capabilities"] = _capabilities(config.child("process").child("capabilities"), request.capabilities)
    if request.no_new_privileges:
        process["noNewPrivileges"] = True
    return process


def _user(request: ExecRequest, user: JsonObject) -> dict[str, object]:
    """The container's user with the changes by the options."""
    changed: dict[str, object] = {}
    if request.user:
        uid, colon, gid = request.user.partition(":")
        changed["uid"] = _id_number("--user", uid)
        if colon:
            changed["gid"] = _id_number("--user", gid)
    if request.groups:
        given = user.fields.get("additionalGids")
        groups = [_id_number("--additional-gids", group) for group in request.groups]
        changed["additionalGids"] = [*(given if isinstance(given, list) else []), *groups]
    return changed


def _id_number(option: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > ID_MAX:
        raise InputError(f"{option}: {text!a} is no number of a user or group", hint="names are the container's own")
    return int(text)


def _capabilities(of_container: JsonObject, added: Sequence[str]) -> dict[str, object]:
    """The container's capabilities and ``added``; not inheritable, as they would survive execve (CVE-2022-24769)."""
    sets: dict[str, object] = {kind: list(of_container.texts(kind)) for kind in of_container.fields}
    for kind in ("bounding", "effective", "permitted"):
        sets[kind] = list(dict.fromkeys([*of_container.texts(kind), *added]))
    return sets


def _detached(
    root: str, container: Container, request: ExecRequest, process: dict[str, object], *, terminal: bool
) -> int:
    if terminal and not request.console_socket:
        raise InputError("a detached process with a terminal needs a --console-socket to hand it to")
    size = _size(process) if terminal else None
    kind, payload = exec_request(container.container_id, process, size, request.cgroup)
    directory = os.path.join(root, container.sandbox_id)
    record = load_record(directory)
    with ExitStack() as undo:
        shim = Shim(undo, None)
        cgroup.join(container.cgroups, shim.pid, THREADS, counted=True)
        wanted = ShimRequest(
            directory, container.sandbox_id, kind, payload.decode(), "", request.console_socket,
            *(size or (0, 0)), reason_log=request.reason_log,
        )  # fmt: skip
        try:
            shim.start(wanted, record)
        except GuestError as error:
            raise _refusal(container, str(error)) from error
        write_pid_file(request.pid_file, shim.pid)
        undo.pop_all()
    return 0 if request.detach else shim.wait()


def _attached(
    root: str, container: Container, request: ExecRequest, process: dict[str, object], *, terminal: bool
) -> int:
    size = (terminal_size(0) or (0, 0)) if terminal else None
    kind, payload = exec_request(container.container_id, process, size, request.cgroup)
    directory = os.path.join(root, container.sandbox_id)
    with ExitStack() as stack:
        number = stack.enter_context(free_port(directory, container.sandbox_id))
        wakeup = stack.enter_context(forwarded_signals())
        port = stack.enter_context(GuestPort(SandboxPaths(directory).exec_socket(number)))
        relay = Relay(port, Streams(0, 1, 2), owned=False)
        relay.watch(wakeup, lambda: forward_signals(relay, wakeup, has_terminal=terminal))
        if terminal:
            stack.enter_context(raw_terminal(0))
        try:
            status = relay.run(kind, payload)
        except RefusedError as error:
            raise _refusal(container, error.message) from None
        if not status:
            relay.require_stdout()
        return status
    raise AssertionError  # unreachable: no callback of the ExitStack suppresses exceptions


def _refusal(container: Container, reason: str) -> KataError:
    """The error for a command that crun did not start; its reasons do not say that the container was ending."""
    try:
        await_end(container.shim, container.shim_start_time, _ENDING_SECONDS)
    except DeadlineError:
        return GuestError(reason)
    return ContainerError(
        f"container {container.container_id} ended before the command was started", container=container.container_id
    )


def _size(process: dict[str, object]) -> tuple[int, int]:
    size = JsonObject("the process: ", process).child("consoleSize")
    return size.number("height"), size.number("width")
