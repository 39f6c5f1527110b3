"""Shims: the process on the host that represents a container, or a command in one.

An engine's monitor waits for it and takes its exit status as the container's. It relays the standard streams that the
engine passed, and is in the container's network namespace. It is forked before anything else is created, since hooks
get its pid, and then waits for its request; if its parent ends without sending one, it ends, too.
"""

from __future__ import annotations

import os
import select
from _socket import AF_UNIX, SO_RCVBUF, SO_SNDBUF, SOCK_SEQPACKET, SOL_SOCKET, socketpair

from kata_runtime import fast_json, operation_log, unix_socket
from kata_runtime import fast_signal as signal
from kata_runtime.errors import DeadlineError, GuestError, HostError, KataError
from kata_runtime.fast_contextlib import ExitStack, closing, suppress
from kata_runtime.guest.crun import hint_of
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.namespace import Namespace, enter_new_namespace
from kata_runtime.oci.network_following import follow
from kata_runtime.oci.shim_mounts import View, show_container_files
from kata_runtime.oci.terminal import hand_over_terminal, terminal_size
from kata_runtime.sandbox.guest_command import forwarded_signals, free_port
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import held_signals, process_descriptor, start_time_of
from kata_runtime.sandbox.stream_relay import START_SECONDS, Relay, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any, NoReturn

    from kata_runtime.sandbox.record import Record

KILLED_STATUS = 128 + signal.SIGKILL
_MESSAGE_BYTES = 1024 * 1024
_READY_SECONDS = 10.0
_CAUSE_SECONDS = 0.5
# A killed QEMU first frees its memory.
_DYING_SECONDS = 0.2
# Longer than the relay's own deadline for crun.
_START_SECONDS = START_SECONDS + 10.0


class ShimRequest(NamedTuple):
    """What a shim is to do: send the request ``kind`` of the agent's protocol with its ``payload`` on a free exec port.

    ``follow`` is the path of the network namespace to mirror, or empty. ``view`` has the fields of a ``View`` for
    those who enter the shim's mount namespace; without it the shim stays in the caller's.
    With a ``console_socket`` there is a terminal, of ``rows`` and ``columns`` (0 if the engine sets the size later).
    ``reason_log`` is the file to write to, besides standard error, why a container did not end by itself.
    ``status_file`` is the file for a container's exit status, empty for other processes.
    """

    directory: str
    sandbox_id: str
    kind: int
    payload: str
    follow: str = ""
    console_socket: str = ""
    rows: int = 0
    columns: int = 0
    reason_log: str = ""
    status_file: str = ""
    view: tuple[Any, ...] = ()


class Shim:
    """The parent's side of a shim."""

    def __init__(self, undo: ExitStack, namespace: str | None) -> None:
        """Fork the shim; ``undo`` ends it. ``namespace`` is a path, ``""`` for a new one, None for the caller's.

        :raise HostError: it cannot be created, or cannot enter the namespace.
        """
        self._channel, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        undo.callback(self._channel.close)
        with closing(theirs), held_signals():
            self.pid = os.fork()
            if self.pid == 0:
                _be_shim(theirs, namespace)
            undo.callback(self._end)
            self.start_time = start_time_of(self.pid) or 0
        self._receive(_READY_SECONDS, "the start of a shim")

    def start(self, request: ShimRequest, sandbox: Record) -> int:
        """Send the request, and pidfds of QEMU and virtiofsd; returns the process's pid in the guest.

        :raise GuestError: the guest refused, with crun's message. :raise HostError: the shim failed on the host.
        """
        data = fast_json.dumps(request._asdict()).encode()
        if len(data) > _MESSAGE_BYTES:
            raise HostError(f"a process of {len(data)} bytes is too large")
        self._channel.setsockopt(SOL_SOCKET, SO_SNDBUF, 2 * _MESSAGE_BYTES)
        try:
            with (
                process_descriptor(sandbox.pid, sandbox.start_time) as machine,
                process_descriptor(sandbox.virtiofsd, sandbox.virtiofsd_start_time) as virtiofsd,
            ):
                unix_socket.send_descriptors(self._channel, data, [machine, virtiofsd])
        except OSError as error:
            raise HostError.of("the shim ended", error) from error
        pid = self._receive(_START_SECONDS, "the start of the container's process").get("pid")
        return pid if isinstance(pid, int) else 0

    def wait(self) -> int:
        """Wait for the end of the shim, and so of its process, without a deadline; returns the exit status."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet: no other process can have this pid
        os.waitpid(self.pid, 0)

    def _receive(self, seconds: float, awaited: str) -> dict[str, object]:
        self._channel.settimeout(seconds)
        try:
            data = self._channel.recv(_MESSAGE_BYTES)
        except TimeoutError:
            raise DeadlineError(awaited, seconds) from None
        except ConnectionResetError:
            data = b""  # it ended before it read the request (net/unix/af_unix.c, unix_release_sock())
        if not data:
            raise HostError("the shim was killed")
        message: dict[str, object] = fast_json.loads(data.decode())
        if "refused" in message:
            reason = str(message["refused"])
            raise GuestError(reason, hint=hint_of(reason))
        if "failed" in message:
            raise HostError(str(message["failed"]))
        return message


def _be_shim(channel: socket, namespace: str | None) -> NoReturn:
    """The main function of the child; it never returns."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _leave_caller(channel)
        status = _serve(channel, namespace)
    except KataError as error:
        _notify(channel, "refused" if isinstance(error, GuestError) else "failed", str(error))
    except OSError as error:
        _notify(channel, "failed", f"the shim failed: {error.strerror}")
    finally:
        os._exit(status)


def _leave_caller(channel: socket) -> None:
    """Release everything of the caller but the standard streams: locks, working directory, session."""
    operation_log.send_to(None)
    with suppress(PermissionError):  # it leads a process group already
        os.setsid()
    os.chdir("/")
    kept = channel.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 30)


def _serve(channel: socket, namespace: str | None) -> int:
    if namespace:
        with Namespace(namespace) as opened:
            opened.enter()
    elif namespace is not None:
        enter_new_namespace()
    _notify(channel, "pid", os.getpid())
    channel.setsockopt(SOL_SOCKET, SO_RCVBUF, 2 * _MESSAGE_BYTES)
    data, processes = unix_socket.receive_descriptors(channel, _MESSAGE_BYTES, 2)
    if not data:
        return 1
    request = ShimRequest(**fast_json.loads(data.decode()))
    with ExitStack() as stack:
        if request.console_socket:
            hand_over_terminal(request.console_socket, request.rows, request.columns)
        number = stack.enter_context(free_port(request.directory, request.sandbox_id))
        wakeup = stack.enter_context(forwarded_signals())
        port = stack.enter_context(GuestPort(SandboxPaths(request.directory).exec_socket(number)))
        relay = Relay(port, Streams(0, 1, 2), owned=not request.console_socket)
        has_terminal = bool(request.console_socket)
        relay.watch(wakeup, lambda: forward_signals(relay, wakeup, has_terminal=has_terminal))
        machine = _Machine(relay, processes)
        status = _relay(relay, machine, channel, request)
        if request.status_file:
            _note_status(request.status_file, status)
        return status
    raise AssertionError  # unreachable: no callback of the ExitStack suppresses exceptions


def _relay(relay: Relay, machine: _Machine, channel: socket, request: ShimRequest) -> int:
    running = False

    def started(pid: int) -> None:
        nonlocal running
        if request.view:
            # Now, since crun has made the mount points.
            show_container_files(
                View(*request.view), [request.directory, request.follow, request.reason_log, request.status_file]
            )
        running = True
        _notify(channel, "pid", pid)
        channel.close()
        size = terminal_size(0) if request.console_socket else None
        if size is not None:
            relay.resize(*size)  # the engine may have set the size meanwhile
        if request.follow:
            follow(relay, request.follow, request.directory)

    try:
        return relay.run(request.kind, request.payload.encode(), started)
    except KataError as error:
        if not running:
            raise
        # When QEMU ends, its ports are closed a moment before the process has ended.
        _explain(request, machine.cause(_CAUSE_SECONDS) or str(error))
        return KILLED_STATUS


def forward_signals(relay: Relay, wakeup: int, *, has_terminal: bool) -> None:
    """Forward the signals that have arrived; for SIGWINCH send the terminal's new size instead."""
    for number in os.read(wakeup, 64):
        size = terminal_size(0) if has_terminal and number == signal.SIGWINCH else None
        if size is None:
            relay.signal(number)
        else:
            relay.resize(*size)


class _Machine:
    """Watches QEMU and virtiofsd by pidfds. If either ends, the guest is gone or hangs, and the pod is ended."""

    def __init__(self, relay: Relay, processes: list[int]) -> None:
        self._processes = dict(zip(processes, ("QEMU", "virtiofsd"), strict=True))
        self._cause: str | None = None
        for fd in processes:
            relay.watch(fd, self._ended)

    def _ended(self) -> None:
        raise GuestError(self.cause(0) or "the container ended with its VM")

    def cause(self, seconds: float) -> str | None:
        """Why the container ended, if either ends within ``seconds``; QEMU is killed then. None if neither does."""
        if self._cause is not None:
            return self._cause  # now QEMU has ended in any case
        poller = select.poll()
        for fd in self._processes:
            poller.register(fd, select.POLLIN)
        ended = [self._processes[fd] for fd, _ in poller.poll(seconds * 1000)]
        if not ended:
            return None
        if ended == ["virtiofsd"] and _ends(next(iter(self._processes)), _DYING_SECONDS):
            # A QEMU that is killed closes its sockets, at which virtiofsd ends, before its own process has ended.
            ended = ["QEMU"]
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(next(iter(self._processes)), signal.SIGKILL)
        self._cause = f"the container ended because {ended[0]} of its VM did"
        return self._cause


def _ends(process: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends within ``seconds``."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _notify(channel: socket, key: str, value: object) -> None:
    with suppress(OSError):  # the parent does not wait any more
        channel.send(fast_json.dumps({key: value}).encode())


def _note_status(path: str, status: int) -> None:
    """Write the exit status for ``events``, whose process is not the shim's parent."""
    with suppress(OSError):  # the container is being deleted, or the disk is full
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.write(file, b"%d\n" % status)
        os.close(file)


def _explain(request: ShimRequest, reason: str) -> None:
    """Write why the container ended to standard error and to the engine's log."""
    line = f"kata-runtime: {reason}\n".encode(errors="backslashreplace")
    with suppress(OSError):
        os.write(2, line)
    if request.reason_log:
        entry = {"level": "error", "msg": reason}
        with suppress(OSError):
            log = os.open(request.reason_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(log, fast_json.dumps(entry).encode() + b"\n")
            os.close(log)
