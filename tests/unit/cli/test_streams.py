"""What a command reads and shows: inputs that change, and progress at a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kata_runtime.cli import progress_meter, streams
from kata_runtime.errors import HostError, InputError, KataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _refusal(path: Path, limit: int = 1 << 20) -> str:
    with pytest.raises(KataError) as refusal:
        streams.read_input(str(path), limit)
    return str(refusal.value)


@pytest.mark.parametrize("size", [10, 600_000])
def test_file_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A file that shrinks or grows after its first part was read is refused: it may have been cut off."""
    path = tmp_path / "rules"
    path.write_bytes(b"x" * 500_000)
    read = os.read

    def changed(descriptor: int, count: int) -> bytes:
        part = read(descriptor, count)
        if path.stat().st_size == 500_000:
            os.truncate(path, size)
        return part

    monkeypatch.setattr("kata_runtime.cli.streams.os.read", changed)
    assert _refusal(path) == f"{path} was changed while it was read; try again when it is complete"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Too large, missing, a directory, an impossible name: one line each."""
    path = tmp_path / "rules"
    path.write_bytes(bytes((1 << 20) + 1))
    assert _refusal(path) == f"{path} is larger than 1 MiB"
    assert _refusal(tmp_path / "none") == f"cannot read {tmp_path / 'none'}: No such file or directory"
    assert _refusal(tmp_path) == f"cannot read {tmp_path}: Is a directory"
    with pytest.raises(InputError):
        streams.read_input("a\0b")
    path.write_bytes(bytes(1 << 20))
    assert streams.read_input(str(path), 1 << 20) == bytes(1 << 20)


_CLOSED = """
import sys
sys.path.append(sys.argv.pop(1))
from kata_runtime.cli import streams
streams.occupy_standard_descriptors()
try:
    streams.read_input("-")
except Exception as error:
    print(error)
"""


def test_closed_standard_input() -> None:
    """A standard input that the caller closed is an error, not an empty input."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(streams.__file__)))
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", _CLOSED, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "cannot read standard input: Bad file descriptor\n"
    assert HostError("x").errno == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time of the meter."""
    now = [100.0]
    monkeypatch.setattr("kata_runtime.cli.progress_meter.time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the meter writes to a standard error that is a terminal."""
    written: list[str] = []
    monkeypatch.setattr("kata_runtime.cli.progress_meter.os.isatty", lambda descriptor: descriptor == 2)
    monkeypatch.setattr(progress_meter.Meter, "_write", staticmethod(written.append))
    return written


def test_progress(clock: Callable[[float], None], shown: list[str]) -> None:
    """Nothing in the first second; then done, total, rate and time left, rewritten in place and wiped at the end."""
    with progress_meter.Meter("rules") as shows:
        for seconds, done in ((0.5, 100), (2.0, 1000), (2.1, 1050), (4.0, 4000)):
            clock(seconds)
            shows.show(done, 5000)
    lines = ["1000 of 5000 rules, 500/s, 8 s left", "4000 of 5000 rules, 1000/s, 1 s left"]
    assert shown == [f"\r{lines[0]}", f"\r{lines[1]}", f"\r{' ' * len(lines[1])}\r"]


def test_no_progress_in_a_pipe(clock: Callable[[float], None], capfd: pytest.CaptureFixture[str]) -> None:
    """Where standard error is no terminal nothing is written, however long it takes."""
    with progress_meter.Meter("rules") as shows:
        clock(60)
        shows.show(1000, 5000)
    assert capfd.readouterr() == ("", "")
