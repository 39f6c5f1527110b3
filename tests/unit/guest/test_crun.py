"""Requests to crun in the guest, and the decoding of its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import GuestError, KataError, ProtocolError
from kata_runtime.guest import wire
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.crun import (
    Crun,
    CrunError,
    Mount,
    Process,
    Setup,
    State,
    Usage,
    create_request,
    exec_request,
)
from kata_runtime.guest.short_command import Completed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _Channel(AgentChannel):
    """Records the commands that it is to run, and returns prepared answers."""

    def __init__(self, status: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> None:
        self.told: list[tuple[tuple[str, ...], bytes]] = []
        self._completed = Completed(status, stdout, stderr)

    def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
    ) -> Completed:
        """Answer."""
        assert fixed_addresses == (argv[0] == "crun")
        self.told.append((tuple(argv), stdin))
        return self._completed


@pytest.mark.parametrize(
    ("call", "argv", "stdin"),
    [
        (lambda crun: crun.start("a"), "start -- a", b""),
        (lambda crun: crun.kill("a", 15), "kill -- a 15", b""),
        (lambda crun: crun.kill("a", 9, everyone=True), "kill --all -- a 9", b""),
        (lambda crun: crun.pause("a"), "pause -- a", b""),
        (lambda crun: crun.resume("a"), "resume -- a", b""),
        (lambda crun: crun.delete("a"), "delete -- a", b""),
        (lambda crun: crun.delete("a", force=True), "delete --force -- a", b""),
        (lambda crun: crun.update("a", {"pids": 1}), "update --resources /proc/self/fd/0 -- a", b'{"pids":1}'),
    ],
)
def test_commands(call: Callable[[Crun], None], argv: str, stdin: bytes) -> None:
    """Each command is crun's own, with the container's name where no option can be."""
    channel = _Channel()
    call(Crun(channel))
    assert channel.told == [(("crun", *argv.split()), stdin)]


def test_requests() -> None:
    """Requests are JSON of the agreed shape."""
    kind, payload = create_request("a", "/b", (24, 80), Setup([Mount("t", "/m", "virtiofs")], ["/m/a"], [("k", "v")]))
    assert (kind, json.loads(payload)) == (
        wire.CREATE,
        {
            "id": "a", "bundle": "/b", "terminal": [24, 80],
            "setup": {
                "mounts": [["t", "/m", "virtiofs", 0, ""]], "paths": ["/m/a"], "sysctls": [["k", "v"]],
                "forgets_names": False,
            },
        },
    )  # fmt: skip
    kind, payload = exec_request("a", {"args": ["x"]}, None, "/sub")
    assert (kind, json.loads(payload)) == (
        wire.CONTAINER_EXEC, {"id": "a", "process": {"args": ["x"]}, "terminal": None, "cgroup": "/sub"},
    )  # fmt: skip


def test_refusals() -> None:
    """The last line that crun printed is the reason, without what could steer a terminal."""
    for stderr, reason in (
        (b"warning\nno \x1b[31msuch container\n\n", "no  [31msuch container"),
        (b"", "crun start ended with status 1"),
        (
            b"writing file `cpuset.cpus`: Numerical result out of range\n",
            (
                "writing file `cpuset.cpus`: Numerical result out of range; "
                "the VM has only the processors of default_vcpus in the configuration, from 0 on"
            ),
        ),
        (b"\xff" * 10_000, "\ufffd" * 4096),
    ):
        with pytest.raises(CrunError) as refused:
            Crun(_Channel(1, b"", stderr)).start("a")
        assert str(refused.value) == reason


def test_state() -> None:
    """Status and pid are read from the state."""
    answer = b'{"ociVersion":"1.0.0","id":"a","pid":7,"status":"running"}'
    assert Crun(_Channel(0, answer)).state("a") == State("running", 7)


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"status":"running"}', b'{"status":"odd","pid":1}',
     b'{"status":"running","pid":true}', b'{"status":"running","pid":-1}', b'{"status":"running","pid":4194305}',
     b'{"status":["running"],"pid":1}', b"\xff", b'{"status":"running","pid":' + b"9" * 5000 + b"}",
     b" " * (257 * 1024)],
)  # fmt: skip
def test_bad_states(answer: bytes) -> None:
    """A state that is none is refused."""
    with pytest.raises(ProtocolError):
        Crun(_Channel(0, answer)).state("a")


def test_processes() -> None:
    """Pids are read from the list; of none crun prints null."""
    assert Crun(_Channel(0, b"[\n 7,\n 8\n]\n")).processes("a") == [7, 8]
    assert Crun(_Channel(0, b"null")).processes("a") == []
    for answer in (b"{}", b'["7"]', b"[0]", b"[true]", b"[7.0]"):
        with pytest.raises(ProtocolError):
            Crun(_Channel(0, answer)).processes("a")


def test_process_table() -> None:
    """Rows of a container's own pids are shown, with nothing that could steer a terminal; other lines are left out."""

    class Channel(_Channel):
        def run(
            self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
        ) -> Completed:
            table = b"PID USER STAT COMMAND\n 7 root S sh -c x\x1b[2J\n8 root S other\n9999999999 a b c\n9 short\n"
            return Completed(0, b"[7, 9]" if argv[0] == "crun" else table, b"")

    assert Crun(Channel(0)).process_table("a") == [Process(7, "root", "S", "sh -c x [2J")]


def _files(**changes: str) -> bytes:
    files = {
        "cpu.stat": "usage_usec 7\nuser_usec 4", "memory.current": "4096", "memory.max": "max", "pids.max": "9",
        "memory.stat": "anon 1", "memory.events": "oom_kill 0", "pids.current": "2",
    } | {name.replace("_", ".", 1): text for name, text in changes.items()}  # fmt: skip
    lines = [f"/sys/fs/cgroup/a/{name}:{line}" for name, text in files.items() for line in text.split("\n")]
    return "\n".join(lines).encode()


def test_usage() -> None:
    """Counters are read from the files of the cgroup; max is no limit, and so is a file that is not there."""
    expected = Usage({"usage_usec": 7, "user_usec": 4}, {"anon": 1}, {"oom_kill": 0}, 4096, None, 2, 9)
    assert Crun(_Channel(0, _files())).usage("/a") == expected
    assert Crun(_Channel(2, b"/sys/fs/cgroup/a/pids.current:1")).usage("/a") == Usage({}, {}, {}, 0, None, 1, None)


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (1, b"", GuestError),
        (0, _files(cpu_stat="usage_usec -1"), ProtocolError),
        (0, _files(cpu_stat="usage"), ProtocolError),
        (0, _files(memory_current="9" * 21), ProtocolError),
        (0, _files(memory_current="1\n2"), ProtocolError),
        (0, _files(pids_current="x"), ProtocolError),
        (0, b"/etc/passwd:root", ProtocolError),
        (0, b"nonsense", ProtocolError),
    ],
)
def test_bad_usage(status: int, answer: bytes, kind: type[KataError]) -> None:
    """Counters that are none are refused."""
    with pytest.raises(kind):
        Crun(_Channel(status, answer)).usage("/a")
