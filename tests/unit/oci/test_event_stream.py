"""The stream of events: what is reported when the OOM killer kills a container's processes, and at its end.

A command in a container really runs out of memory in tests/system/engines/test_bundle.py. The container's own process
does not: the guest's kernel of Debian 12 does not reliably survive that on virtiofs, since the end of the container can
meet "VFS: Busy inodes after unmount" then (6.1.176, fs/super.c).
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import ContainerError, GuestError
from kata_runtime.guest.crun import Usage
from kata_runtime.oci import event_stream
from kata_runtime.oci.container import Container
from kata_runtime.sandbox.process import start_time_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _usage(killed: int) -> Usage:
    return Usage({}, {}, {"oom_kill": killed}, 0, None, 1, None)


@pytest.fixture
def shim() -> Iterator[Container]:
    """A container whose shim runs until the test ends it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        try:
            yield Container("web", "web", "", "", {}, "running", process.pid, start_time_of(process.pid) or 0)
        finally:
            process.kill()


def _events(
    monkeypatch: pytest.MonkeyPatch, container: Container, looks: list[Usage | Exception], last: Usage | Exception
) -> list[object]:
    """The types of the events of a guest that reports ``looks`` one after the other, and ``last`` when it has ended."""
    remaining = iter(looks)

    def told(value: Usage | Exception) -> Usage:
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(event_stream, "usage", lambda root, container: told(next(remaining)))
    monkeypatch.setattr(event_stream, "last_usage", lambda root, container: told(last))
    return [event["type"] for event in event_stream.events("", container, 0.001)]


def test_oom(monkeypatch: pytest.MonkeyPatch, shim: Container) -> None:
    """Each sample with more killed processes gives an oom event before its stats; so does the last, after the end."""
    ended = ContainerError("container web is stopped", container="web")
    looks: list[Usage | Exception] = [_usage(3), _usage(3), _usage(4), _usage(4), _usage(9), ended]
    assert _events(monkeypatch, shim, looks, _usage(10)) == [
        "stats", "oom", "stats", "stats", "oom", "stats", "oom", "exit"
    ]  # fmt: skip


def test_guest_that_is_gone(monkeypatch: pytest.MonkeyPatch, shim: Container) -> None:
    """A container whose guest is gone with it ends the stream all the same."""
    ended = ContainerError("container web is stopped", container="web")
    looks: list[Usage | Exception] = [_usage(0), _usage(0), ended]
    assert _events(monkeypatch, shim, looks, GuestError("no VM")) == ["stats", "exit"]


def test_guest_that_fails(monkeypatch: pytest.MonkeyPatch, shim: Container) -> None:
    """A guest that does not answer while the container runs is an error, not an end."""
    with pytest.raises(GuestError, match=r"^no answer$"):
        _events(monkeypatch, shim, [_usage(0), _usage(0), GuestError("no answer")], _usage(0))


def test_exit_status(monkeypatch: pytest.MonkeyPatch, shim: Container, tmp_path: Path) -> None:
    """The last event has the status that the shim noted; a shim that was killed, or a full disk, leaves none."""
    monkeypatch.setattr(event_stream, "usage", lambda root, container: _usage(0))
    monkeypatch.setattr(event_stream, "last_usage", lambda root, container: _usage(0))
    os.kill(shim.shim, signal.SIGKILL)
    (tmp_path / "web").mkdir()
    last = []
    for noted in (None, "", "7\n"):
        if noted is not None:
            (tmp_path / "web" / "exit-status").write_text(noted)
        *_, event = event_stream.events(str(tmp_path), shim, 0.001)
        last.append(event)
    nothing = {"type": "exit", "id": "web"}
    assert last == [nothing, nothing, {**nothing, "data": {"exitStatus": 7}}]


def test_shim_that_ends(monkeypatch: pytest.MonkeyPatch, shim: Container) -> None:
    """The end of the container's shim ends the wait for the next look."""
    process = shim.shim
    looks: list[Usage | Exception] = [_usage(0), _usage(0)]
    remaining = iter(looks)
    monkeypatch.setattr(event_stream, "usage", lambda root, container: next(remaining))
    monkeypatch.setattr(event_stream, "last_usage", lambda root, container: _usage(0))
    stream = event_stream.events("", shim, 30.0)
    assert next(stream)["type"] == "stats"
    subprocess.run(["kill", "-KILL", str(process)], check=True)
    assert [event["type"] for event in stream] == ["exit"]
