"""crun in the guest: the requests that create containers, its short commands, and its answers (crun(1), 1.8).

The answers come from the guest: they are bounded and parsed strictly.
"""

from __future__ import annotations

from kata_runtime import fast_json
from kata_runtime.errors import GuestError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from kata_runtime.guest.short_command import Completed

    class Runner(Protocol):
        """Runs short commands in a guest."""

        def run(
            self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
        ) -> Completed:
            """Run a command; returns its result. ``fixed_addresses`` is as in ``short_command.run_command``."""
            ...


_SECONDS = 30.0
_ANSWER_BYTES_MAX = 256 * 1024
_REASON_LENGTH = 4096
_PID_MAX = 1 << 22  # include/linux/threads.h: PID_MAX_LIMIT
_COUNTER_MAX = 1 << 64
_DIGITS_MAX = 20  # of such a counter
_STATUSES = frozenset({"creating", "created", "running", "paused", "stopped"})
_CGROUP_ROOT = "/sys/fs/cgroup"
_USAGE_FILES = (
    "cpu.stat", "memory.current", "memory.max", "memory.stat", "memory.events", "pids.current", "pids.max",
)  # fmt: skip
_FLAT_LINE = r"([a-z0-9_]{1,64}) (\d{1,20})"


class Request(NamedTuple):
    """A frame for an exec port."""

    kind: int
    payload: bytes


class State(NamedTuple):
    """A container's state according to crun; ``pid`` is in the guest, 0 if it is stopped."""

    status: str
    pid: int


class Process(NamedTuple):
    """A process of the guest; ``state`` is as in ps(1), ``command`` its arguments or, in brackets, its name."""

    pid: int
    user: str
    state: str
    command: str


class Usage(NamedTuple):
    """What a container uses (Documentation/admin-guide/cgroup-v2.rst); bytes and microseconds, None: no limit.

    ``memory_events["oom_kill"]`` counts the processes that the OOM killer has killed.
    """

    cpu: dict[str, int]
    memory: dict[str, int]
    memory_events: dict[str, int]
    memory_current: int
    memory_limit: int | None
    pids_current: int
    pids_limit: int | None


class CrunError(GuestError):
    """crun refused; the message is its own, from which engines derive exit statuses."""


class Mount(NamedTuple):
    """A file system that the guest mounts unless something is mounted at ``target``; see mount(2)."""

    source: str
    target: str
    kind: str
    flags: int = 0
    options: str = ""


class Setup(NamedTuple):
    """What the guest does before crun: mounts, sysctls by their path below /proc/sys, and looking up ``paths``.

    ``forgets_names``: first the kernel drops the names of files that it has cached.
    """

    mounts: Sequence[Mount] = ()
    paths: Sequence[str] = ()
    sysctls: Sequence[tuple[str, str]] = ()
    forgets_names: bool = False


_NO_SETUP = Setup()


def create_request(
    container_id: str, bundle: str, terminal: tuple[int, int] | None, setup: Setup = _NO_SETUP
) -> Request:
    """``crun create`` of a bundle in the guest, on a terminal of ``(rows, columns)`` or on pipes, after ``setup``."""
    document = {"id": container_id, "bundle": bundle, "terminal": terminal, "setup": setup._asdict()}
    return _request(wire.CREATE, document)


def exec_request(
    container_id: str, process: Mapping[str, object], terminal: tuple[int, int] | None, cgroup: str = ""
) -> Request:
    """``crun exec`` of an OCI process object, ignoring its own ``terminal``; ``cgroup`` is below the container's."""
    document = {"id": container_id, "process": process, "terminal": terminal, "cgroup": cgroup}
    return _request(wire.CONTAINER_EXEC, document)


def _request(kind: int, document: Mapping[str, object]) -> Request:
    return Request(kind, fast_json.dumps(document).encode())


class Crun:
    """crun's short commands.

    Each raises ``CrunError`` when crun refuses, and what the runner raises.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def start(self, container_id: str) -> None:
        """Let a created container run its program."""
        self._run(["start", "--", container_id])

    def kill(self, container_id: str, number: int, *, everyone: bool = False) -> None:
        """Send a signal to a container's first process, or to ``everyone`` in it."""
        self._run(["kill", *(["--all"] if everyone else []), "--", container_id, str(number)])

    def pause(self, container_id: str) -> None:
        """Stop every process of a container."""
        self._run(["pause", "--", container_id])

    def resume(self, container_id: str) -> None:
        """Let the processes of a paused container continue."""
        self._run(["resume", "--", container_id])

    def update(self, container_id: str, resources: Mapping[str, object]) -> None:
        """Change limits, given as in ``linux.resources`` of a config.json."""
        self._run(["update", "--resources", "/proc/self/fd/0", "--", container_id], fast_json.dumps(resources).encode())

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove what is left of a stopped container; ``force`` kills it first, and accepts that it does not exist."""
        self._run(["delete", *(["--force"] if force else []), "--", container_id])

    def state(self, container_id: str) -> State:
        """A container's state."""
        answer = _json(self._run(["state", "--", container_id]))
        status, pid = (answer.get("status"), answer.get("pid")) if isinstance(answer, dict) else (None, None)
        if not isinstance(status, str) or status not in _STATUSES or not isinstance(pid, int) or not _is_pid(pid, 0):
            raise ProtocolError("crun gave a state without a status or pid")
        return State(status, pid)

    def processes(self, container_id: str) -> list[int]:
        """The pids, in the guest, of a container's processes."""
        answer = _json(self._run(["ps", "--format", "json", "--", container_id]))
        # Without any process crun 1.8 prints "null".
        pids = [] if answer is None else answer
        if not isinstance(pids, list) or not all(isinstance(pid, int) and _is_pid(pid, 1) for pid in pids):
            raise ProtocolError("crun gave a list that is not of pids")
        return pids

    def process_table(self, container_id: str) -> list[Process]:
        """A container's processes as the guest's own ``ps`` shows them."""
        pids = set(self.processes(container_id))
        done = self._runner.run(["busybox", "ps", "-o", "pid,user,stat,args"], seconds=_SECONDS)
        rows = (line.split(None, 3) for line in done.stdout[:_ANSWER_BYTES_MAX].decode("utf-8", "replace").splitlines())
        return [
            Process(int(row[0]), *map(_printable, row[1:]))
            for row in rows
            if len(row) == 4 and row[0].isascii() and row[0].isdecimal() and len(row[0]) < 8 and int(row[0]) in pids
        ]

    def usage(self, cgroup: str) -> Usage:
        """What the processes of the cgroup (a path as in ``linux.cgroupsPath``) use, which crun does not report."""
        directory = f"{_CGROUP_ROOT}/{cgroup.strip('/')}"
        argv = ["grep", "-s", "", *(f"{directory}/{name}" for name in _USAGE_FILES)]
        done = self._runner.run(argv, seconds=_SECONDS)
        if done.exit_status not in (0, 2):
            raise GuestError(f"the guest has no cgroup {cgroup!a}")
        return _usage(_decoded(done.stdout), directory)

    def _run(self, words: Sequence[str], stdin: bytes = b"") -> bytes:
        done = self._runner.run(["crun", *words], stdin, seconds=_SECONDS, fixed_addresses=True)
        if done.exit_status:
            reason = _reason(done, words[0])
            raise CrunError(reason, hint=hint_of(reason))
        return done.stdout


def _reason(done: Completed, verb: str) -> str:
    """The last line of crun's error output."""
    text = done.stderr[-_REASON_LENGTH:].decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else f"crun {verb} ended with status {done.exit_status}"
    return _printable(line)


def hint_of(reason: str) -> str | None:
    """What a user can do about a reason of crun's that only the guest explains."""
    if "cpuset.cpus" in reason:
        return "the VM has only the processors of default_vcpus in the configuration, from 0 on"
    return None


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _decoded(data: bytes) -> str:
    if len(data) > _ANSWER_BYTES_MAX:
        raise ProtocolError(f"an answer of more than {_ANSWER_BYTES_MAX >> 10} KiB was sent by the guest")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("an answer that is no ASCII was sent by the guest") from None


def _json(data: bytes) -> object:
    try:
        answer: object = fast_json.loads(_decoded(data))
    except (ValueError, RecursionError):
        raise ProtocolError("crun gave no JSON") from None
    return answer


def _is_pid(number: int, least: int) -> bool:
    return not isinstance(number, bool) and least <= number <= _PID_MAX


def _usage(text: str, directory: str) -> Usage:
    """Parse grep's output: ``FILE:LINE`` each."""
    files: dict[str, list[str]] = {name: [] for name in _USAGE_FILES}
    for line in text.splitlines():
        name, _, value = line.removeprefix(f"{directory}/").partition(":")
        if name not in files:
            raise ProtocolError("the guest sent a line that was not requested")
        files[name].append(value)
    return Usage(
        _flat(files["cpu.stat"]),
        _flat(files["memory.stat"]),
        _flat(files["memory.events"]),
        _single(files["memory.current"]) or 0,
        _single(files["memory.max"]),
        _single(files["pids.current"]) or 0,
        _single(files["pids.max"]),
    )


def _flat(lines: Sequence[str]) -> dict[str, int]:
    import re

    found = {}
    for line in lines:
        match = re.fullmatch(_FLAT_LINE, line)
        if match is None:
            raise ProtocolError("the guest's kernel reports usage in an unknown format")
        found[match[1]] = min(int(match[2]), _COUNTER_MAX - 1)
    return found


def _single(lines: Sequence[str]) -> int | None:
    """The number in a file; None for "max", and for no such file."""
    if not lines or lines == ["max"]:
        return None
    if len(lines) != 1 or not (lines[0].isascii() and lines[0].isdecimal() and len(lines[0]) <= _DIGITS_MAX):
        raise ProtocolError("the guest's kernel reports usage in an unknown format")
    return int(lines[0])
