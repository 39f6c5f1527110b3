"""Containers and commands in them, made by crun for a host that holds an exec port."""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.guest import wire
from kata_runtime.guest.agent.command_process import spawn
from kata_runtime.guest.agent.process_streams import Streams, close_all, make_pipes
from kata_runtime.guest.agent.pseudo_terminal import ConsoleSocket, Terminal

if TYPE_CHECKING:
    from kata_runtime.guest.agent.children import Children
    from kata_runtime.guest.agent.guest_port import Port
    from kata_runtime.guest.agent.job import Owner

# Of crun, for root.
STATE_DIRECTORY = "/run/crun"
_SCRATCH_DIRECTORY = "/run/kata-agent"
_PREPARE = "/etc/init.d/containers"
_CGROUP_ROOT = "/sys/fs/cgroup"
_COMPLAINT_BYTES = 64 * 1024
_SIZE_MAX = 0xFFFF


class Wanted(NamedTuple):
    """A decoded CREATE (with a bundle) or CONTAINER_EXEC request (with a process)."""

    container_id: str
    bundle: str
    process: dict[str, object] | None
    size: tuple[int, int] | None


def parse_request(kind: int, payload: bytes) -> Wanted:
    """The request in a CREATE or CONTAINER_EXEC frame.

    :raise ValueError, KeyError, TypeError: when it is not JSON of the agreed shape.
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
        return Wanted(container_id, document["bundle"], None, size)
    process = document["process"]
    if not isinstance(process, dict):
        raise TypeError("process must be an object")
    process["terminal"] = size is not None
    if size is not None:
        # It runs, and can ask, before we have the terminal.
        process["consoleSize"] = dict(zip(("height", "width"), size, strict=True))
    return Wanted(container_id, "", process, size)


class Crun:
    """Makes containers; knows whether the guest is prepared for them."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self._is_prepared = False
        self._count = 0

    def prefix(self) -> list[str]:
        """What comes before crun on a command line, until crun has once succeeded."""
        return [] if self._is_prepared else [_PREPARE]

    def succeeded(self) -> None:
        """The guest is prepared."""
        self._is_prepared = True

    def scratch(self) -> str:
        """A new directory."""
        self._count += 1
        path = f"{_SCRATCH_DIRECTORY}/{os.getpid()}-{self._count}"
        os.makedirs(path, 0o700)
        return path

    def end_leftovers(self) -> None:
        """End the containers of a previous agent, as their exit status cannot be reported any more."""
        for name in os.listdir(STATE_DIRECTORY) if os.path.isdir(STATE_DIRECTORY) else ():
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            spawn(["crun", "delete", "--force", "--", name], [nowhere, nowhere, nowhere])
            os.close(nowhere)


class Container:
    """A container's first process, or a command in a container: made by crun, then a child of the agent's.

    Its pid means it until it is reaped, which happens in ``Children`` alone.
    """

    def __init__(self, port: Port, request: int, wanted: Wanted, crun: Crun, owner: Owner) -> None:
        """Start crun; the owner learns what becomes of it.

        :raise OSError: it cannot be started.
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
        self._scratch = crun.scratch()
        self._ours: list[int] = []
        crun.children.begin_adoption()
        try:
            crun.children.expect(self._spawn(), self._crun_ended)
        except BaseException:
            crun.children.end_adoption()
            self._clean()
            raise

    def _spawn(self) -> int:
        path = self._scratch
        if self._wanted.process is None:
            verb = ["create", "--bundle", self._wanted.bundle]
        else:
            with open(f"{path}/process", "w") as file:
                json.dump(self._wanted.process, file)
            verb = ["exec", "--detach", "--process", f"{path}/process"]
        if self._wanted.size is not None:
            self._console = ConsoleSocket(f"{path}/console")
            verb += ["--console-socket", self._console.path]
        self._ours, theirs = make_pipes()
        argv = [*self._crun.prefix(), "crun", "--log", f"{path}/log", *verb]
        argv += ["--pid-file", f"{path}/pid", "--", self._wanted.container_id]
        try:
            return spawn(argv, theirs)
        finally:
            close_all(theirs)

    def _crun_ended(self, status: int) -> None:
        try:
            if status:
                self._failed(errno.ECHILD, self._reason() or f"crun ended with status {status}")
                return
            self._crun.succeeded()
            try:
                self._adopt()
            except (OSError, ValueError) as error:
                self._failed(errno.EPROTO, f"crun gave no process or terminal: {error}")
        finally:
            self._crun.children.end_adoption()
            self._clean()

    def _adopt(self) -> None:
        """Adopt the process that crun created, and relay its streams."""
        with open(f"{self._scratch}/pid") as file:
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
        """The pipes that crun's heir has, or its terminal in their place.

        :raise OSError: the terminal did not come; the container is killed.
        """
        if self._console is None:
            stdin, stdout, stderr = self._ours
            self._ours = []
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
        """The last line of crun's errors: in its log, or, before that was open, on standard error."""
        try:
            with open(f"{self._scratch}/log", "rb") as file:
                text = file.read(_COMPLAINT_BYTES)
        except OSError:
            text = b""
        try:
            os.set_blocking(self._ours[2], False)
            text = text or os.read(self._ours[2], _COMPLAINT_BYTES)
        except BlockingIOError:
            text = b""
        lines = text.decode("utf-8", "replace").splitlines()
        return lines[-1] if lines else ""

    def _clean(self) -> None:
        close_all(self._ours)
        self._ours = []
        if self._console is not None:
            self._console.close()
        for name in os.listdir(self._scratch):
            os.unlink(f"{self._scratch}/{name}")
        os.rmdir(self._scratch)

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
        """The host is gone: kill it."""
        self._is_abandoned = True
        if self._streams is not None:
            self._streams.abandon()
        self._close_terminal()
        self._kill()

    def _close_terminal(self) -> None:
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None


def _cgroup_of(pid: int) -> str:
    """The directory of a process's cgroup; nothing where it is the root (cgroups(7), /proc/PID/cgroup)."""
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            path = file.read(4096).strip().removeprefix("0::")
    except OSError:
        return ""
    return _CGROUP_ROOT + path if path.startswith("/") and path != "/" else ""
