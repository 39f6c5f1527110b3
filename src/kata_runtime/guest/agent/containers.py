"""Starts containers, and commands in them, with crun; each belongs to the host that is connected to an exec port."""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest import wire
from kata_runtime.guest.agent.command_process import Command, spawn, spawn_prepared
from kata_runtime.guest.agent.container_setup import CGROUP_ROOT, CRUN, Setup, parse_setup, set_up
from kata_runtime.guest.agent.process_streams import Streams, close_all, make_pipes
from kata_runtime.guest.agent.pseudo_terminal import ConsoleSocket, Terminal

if TYPE_CHECKING:
    from kata_runtime.guest.agent.children import Children
    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.job import Owner

# Where crun keeps its state when root runs it.
STATE_DIRECTORY = "/run/crun"
_WORK_DIRECTORY = "/run/kata-agent"
_ABANDONED = "abandoned"
_ERROR_BYTES = 64 * 1024
_SIZE_MAX = 0xFFFF


class ContainerRequest(NamedTuple):
    """A decoded request: CREATE has a bundle and what to set up before, CONTAINER_EXEC a process."""

    container_id: str
    bundle: str
    process: dict[str, object] | None
    size: tuple[int, int] | None
    cgroup: str = ""
    setup: Setup = Setup()


def parse_request(kind: int, payload: bytes) -> ContainerRequest:
    """Decode the payload of a CREATE or CONTAINER_EXEC frame.

    :raise ValueError, KeyError, TypeError: it is not JSON, or has other keys or types than ``wire`` says.
    """
    document = json.loads(payload)
    container_id, size = document["id"], document["terminal"]
    if not isinstance(container_id, str):
        raise TypeError("id must be a string")
    if size is not None:
        rows, columns = size
        if not all(isinstance(number, int) and 0 <= number <= _SIZE_MAX for number in (rows, columns)):
            raise ValueError("terminal must be rows and columns")
        size = (rows, columns)
    if kind == wire.CREATE:
        if not isinstance(document["bundle"], str):
            raise TypeError("bundle must be a string")
        return ContainerRequest(container_id, document["bundle"], None, size, setup=parse_setup(document["setup"]))
    process = document["process"]
    if not isinstance(process, dict):
        raise TypeError("process must be an object")
    if not isinstance(document["cgroup"], str):
        raise TypeError("cgroup must be a string")
    process["terminal"] = size is not None
    if size is not None:
        # The process runs, and may ask for the size, before the agent has the terminal and can set it.
        process["consoleSize"] = dict(zip(("height", "width"), size, strict=True))
    return ContainerRequest(container_id, "", process, size, document["cgroup"])


class Crun:
    """What all calls of crun share: temporary directories and child processes."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self._count = 0

    def make_directory(self) -> str:
        """Make a new temporary directory for the files that are exchanged with crun; return its path."""
        self._count += 1
        path = f"{_WORK_DIRECTORY}/{os.getpid()}-{self._count}"
        os.makedirs(path, 0o700)
        return path

    def end_leftovers(self) -> None:
        """Kill the containers of a previous agent, since nobody can get their exit status any more."""
        for name in os.listdir(STATE_DIRECTORY) if os.path.isdir(STATE_DIRECTORY) else ():
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            spawn(Command(["crun", "delete", "--force", "--", name], fixed_addresses=True), [null, null, null])
            os.close(null)


class Container:
    """A container's first process, or a command in a container. crun creates it, then it becomes a child of the agent.

    The pid cannot be reused before the process is reaped, which only ``Children`` does.
    """

    def __init__(self, port: Port, request: int, wanted: ContainerRequest, crun: Crun, owner: Owner) -> None:
        """Start crun; ``owner`` is notified of the result.

        :raise OSError: crun cannot be started.
        """
        self._port = port
        self._request = request
        self._wanted = wanted
        self._crun = crun
        self._owner = owner
        self._streams: Streams | None = None
        self._console: ConsoleSocket | None = None
        self._terminal: Terminal | None = None
        self._pid = 0
        self._status: int | None = None
        self._cgroup = ""
        self._is_abandoned = False
        self._directory = crun.make_directory()
        self._pipe_ends: list[int] = []
        crun.children.begin_adoption()
        try:
            crun.children.expect(self._spawn(), self._crun_ended)
        except BaseException:
            crun.children.end_adoption()
            self._clean()
            raise

    def _spawn(self) -> int:
        path = self._directory
        if self._wanted.process is None:
            subcommand = ["create", "--bundle", self._wanted.bundle]
        else:
            with open(f"{path}/process", "w") as file:
                json.dump(self._wanted.process, file)
            subcommand = ["exec", "--detach", "--process", f"{path}/process"]
            if self._wanted.cgroup:
                subcommand.append(f"--cgroup={self._wanted.cgroup}")
        if self._wanted.size is not None:
            self._console = ConsoleSocket(f"{path}/console")
            subcommand += ["--console-socket", self._console.path]
        self._pipe_ends, theirs = make_pipes()
        argv = [CRUN, "--log", f"{path}/log", *subcommand, "--pid-file", f"{path}/pid", "--", self._wanted.container_id]
        # The container's programs get random addresses again by the personality in its configuration.
        command = Command(argv, fixed_addresses=True)
        try:
            if self._wanted.process is None:
                return spawn_prepared(self._set_up, command, theirs)
            return spawn(command, theirs)
        finally:
            close_all(theirs)

    def _set_up(self) -> None:
        """In the child: do what comes before crun. That may take long, and the host disconnect meanwhile."""
        set_up(self._wanted.setup)
        if os.path.exists(f"{self._directory}/{_ABANDONED}"):
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), "a container that nobody waits for")

    def _crun_ended(self, status: int) -> None:
        try:
            if status:
                self._failed(errno.ECHILD, self._reason() or f"crun ended with status {status}")
                return
            try:
                self._adopt()
            except (OSError, ValueError) as error:
                self._failed(errno.EPROTO, f"crun gave no process or terminal: {error}")
        finally:
            self._crun.children.end_adoption()
            self._clean()

    def _adopt(self) -> None:
        """Adopt the process that crun created, and relay its streams."""
        with open(f"{self._directory}/pid") as file:
            self._pid = int(file.read(32))
        self._crun.children.adopt(self._pid, self._reaped)
        if self._wanted.process is None:
            self._cgroup = _cgroup_of(self._pid)
        self._streams = self._open_streams()
        if self._is_abandoned:
            self.hang_up()
            return
        self._port.send(wire.STARTED, self._request, wire.pack_count(self._pid))
        self._owner.started(self)
        if self._status is not None:
            self._owner.ended(self, self._status)

    def _open_streams(self) -> Streams:
        """The process's pipes, or its terminal.

        :raise OSError: crun sent no terminal; the container is killed.
        """
        if self._console is None:
            stdin, stdout, stderr = self._pipe_ends
            self._pipe_ends = []
            return Streams(self._port, self._request, stdin, {stdout: wire.STDOUT, stderr: wire.STDERR})
        try:
            self._terminal = Terminal(self._console.receive())
        except OSError:
            self._kill()
            raise
        self.resize(*(self._wanted.size or (0, 0)))
        return Streams(self._port, self._request, self._terminal.writer, {self._terminal.reader: wire.STDOUT})

    def _reaped(self, status: int) -> None:
        self._status = status
        if self._streams is not None and not self._is_abandoned:
            self._owner.ended(self, status)

    def _kill(self) -> None:
        """Kill the process that crun created, and all others of its container."""
        if self._pid and self._status is None:
            os.kill(self._pid, signal.SIGKILL)
        if self._cgroup:
            try:
                with open(f"{self._cgroup}/cgroup.kill", "w") as file:
                    file.write("1")
            except OSError:
                return  # the container has been deleted meanwhile, and its cgroup with it

    def _failed(self, number: int, text: str) -> None:
        self._is_abandoned = True
        self._owner.failed(self, number, text)

    def _reason(self) -> str:
        """The last line of crun's error messages: from its log, or from standard error if it could not open the log."""
        try:
            with open(f"{self._directory}/log", "rb") as file:
                text = file.read(_ERROR_BYTES)
        except OSError:
            text = b""
        try:
            os.set_blocking(self._pipe_ends[2], False)
            text = text or os.read(self._pipe_ends[2], _ERROR_BYTES)
        except BlockingIOError:
            text = b""
        lines = text.decode("utf-8", "replace").splitlines()
        return lines[-1] if lines else ""

    def _clean(self) -> None:
        close_all(self._pipe_ends)
        self._pipe_ends = []
        if self._console is not None:
            self._console.close()
        for name in os.listdir(self._directory):
            os.unlink(f"{self._directory}/{name}")
        os.rmdir(self._directory)

    @property
    def streams(self) -> Streams | None:
        """Its pipes or its terminal."""
        return self._streams

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self._pid and self._status is None:
            os.kill(self._pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal."""
        if self._terminal is not None:
            self._terminal.resize(rows, columns)

    def finish(self, status: int) -> None:
        """Send the exit status to the host."""
        if self._streams is not None:
            self._streams.finish(status)
        self._close_terminal()

    def hang_up(self) -> None:
        """The host has disconnected: kill the process, or the whole container."""
        self._is_abandoned = True
        if not self._pid:
            self._notify_child()
        if self._streams is not None:
            self._streams.abandon()
        self._close_terminal()
        self._kill()

    def _notify_child(self) -> None:
        """Make the file that ``_set_up`` looks for."""
        try:
            os.close(os.open(f"{self._directory}/{_ABANDONED}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        except OSError:
            return  # without memory: crun starts, and what it creates is killed

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None


def _cgroup_of(pid: int) -> str:
    """The directory of a process's cgroup; empty for the root cgroup (cgroups(7), /proc/PID/cgroup)."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            path = file.read(4096).strip().removeprefix("0::")
    except OSError:
        return ""
    return CGROUP_ROOT + path if path.startswith("/") and path != "/" else ""
