"""Results that are gathered before they are written, and lines for people that never wait for their reader."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.cli import ipvs_commands, streams
from kata_runtime.cli.argument_parser import Call, parse
from kata_runtime.cli.progress_meter import Meter
from kata_runtime.cli.spool import Spool
from kata_runtime.errors import GuestError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS = 30.0
_SOURCE = str(Path(__file__).parents[3] / "src")
_LINE = "0123456789abcde\n"


@pytest.mark.parametrize("size", [0, 1000, 5_000_000, 36_000_000])
def test_spool(capfdbinary: pytest.CaptureFixture[bytes], size: int) -> None:
    """What was added comes out whole and in order, from memory or a file, and nothing before it is asked for."""
    lines = size // len(_LINE)
    with Spool() as spool:
        for number in range(lines):
            spool.add(b"%015d\n" % number)
        assert capfdbinary.readouterr().out == b""
        spool.write_out()
    assert capfdbinary.readouterr().out == b"".join(b"%015d\n" % number for number in range(lines))


def test_file_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A large result is in a file without a name, so that nothing can be left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    with Spool() as spool:
        spool.add(b"x" * 17_000_000)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


_FULL = """
import resource, sys
sys.path.append(sys.argv.pop(1))
from kata_runtime.cli.spool import Spool
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))
try:
    with Spool() as spool:
        for _ in range(20):
            spool.add(b"x" * 1_000_000)
        spool.write_out()
except Exception as error:
    print(error)
"""


def test_no_room() -> None:
    """A result for which there is no room is a failure that says so, and no part of it is written."""
    done = subprocess.run([sys.executable, "-c", _FULL, _SOURCE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (
        "cannot keep the result: File too large; make room where TMPDIR points to, or in /tmp\n",
        "",
    )


@contextmanager
def _standard_error(descriptor: int) -> Iterator[None]:
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _fill() -> None:
    """Write for people until long after nothing more is taken; a write that waits would wait for ever."""
    meter = Meter("rules")
    for number in range(20_000):
        streams.note(f"line {number}")
    meter._width = 10
    meter.__exit__()


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_nobody_reads(kind: str) -> None:
    """A pipe or terminal that is full, as with a stopped reader, takes what it has room for; the rest is dropped."""
    reading, writing = os.pipe() if kind == "pipe" else pty.openpty()
    try:
        with _standard_error(writing):
            _fill()
        taken = os.read(reading, 4096)
    finally:
        os.close(reading)
        os.close(writing)
    assert taken.replace(b"\r\n", b"\n").startswith(b"kata-runtime: line 0\nkata-runtime: line 1\n")


def test_notes_go_to_the_end_of_a_file(tmp_path: Path) -> None:
    """In a file the lines follow each other and what was there."""
    path = tmp_path / "errors"
    path.write_text("before\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        with _standard_error(descriptor):
            streams.note("first")
            streams.note("second")
    finally:
        os.close(descriptor)
    assert path.read_text() == "before\nkata-runtime: first\nkata-runtime: second\n"


def test_standard_output_refuses() -> None:
    """A full disk behind standard output is a failure with its reason."""
    full = os.open("/dev/full", os.O_WRONLY)
    before = os.dup(1)
    os.dup2(full, 1)
    try:
        with Spool() as spool:
            spool.add(b"x")
            with pytest.raises(HostError) as refusal:
                spool.write_out()
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(full)
    assert str(refusal.value) == "cannot write the result to standard output: No space left on device"


def test_late_failure(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A listing that fails after its beginning was gathered prints nothing of it."""

    def run_ipvsadm(_session: object, _asked: object, *, output: Callable[[bytes], None], fmt: str) -> None:
        output(f"the beginning as {fmt}\n".encode())
        raise GuestError("the guest's VM ended")

    monkeypatch.setattr("kata_runtime.cli.ipvs_commands.session_of", lambda *_, **__: nullcontext())
    monkeypatch.setattr("kata_runtime.ipvs.commands.run_ipvsadm", run_ipvsadm)
    asked = parse(["kata-ipvs", "ipvsadm", "--parameters", "-L", "web"])
    assert isinstance(asked, Call)
    with pytest.raises(GuestError):
        ipvs_commands.run(asked)
    assert capfd.readouterr() == ("", "")
