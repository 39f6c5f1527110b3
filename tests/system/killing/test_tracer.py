"""The tracer that the tests of ended commands rely on."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest
from tests.system.killing.tracer import run_traced

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (os.write(2, b"handled\\n"), os._exit(3)))
os.makedirs(sys.argv[1] + "/a")
os.open(sys.argv[1], os.O_RDONLY)
os.rename(sys.argv[1] + "/a", sys.argv[1] + "/b")
os.write(1, b"said\\n")
"""
_CALLS = ["mkdir", "mkdir", "rename", "write"]


def test_changing_calls_are_found(tmp_path: Path) -> None:
    """All calls that change something are listed in order, and no others; a program before Python does not count."""
    argv = ["env", "A=1", sys.executable, "-ISc", _PROGRAM, str(tmp_path / "made")]
    traced = run_traced(argv)
    assert traced == (0, "said\n", "", _CALLS, False, False)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["b"]


@pytest.mark.parametrize(("moment", "left"), [("before", "a"), ("after", "b")])
def test_killed(tmp_path: Path, moment: str, left: str) -> None:
    """SIGKILL keeps the call from happening, or comes before anything else can."""
    argv = [sys.executable, "-ISc", _PROGRAM, str(tmp_path / "made")]
    assert run_traced(argv, at=2, moment=moment) == (-9, "", "", _CALLS[:3], True, False)
    assert [path.name for path in (tmp_path / "made").iterdir()] == [left]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_asked_to_end(tmp_path: Path, moment: str) -> None:
    """Another signal's handler in Python runs behind the call: an interpreter knows no better moment."""
    argv = [sys.executable, "-ISc", _PROGRAM, str(tmp_path / "made")]
    traced = run_traced(argv, at=2, moment=moment, number=signal.SIGTERM)
    assert traced == (3, "", "handled\n", _CALLS[:3], True, False)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["b"]


def test_what_hangs_is_told() -> None:
    """A program that does not end is killed, and that is reported."""
    script = "import os, signal\nos.write(1, b'\\n')\nsignal.pause()"
    traced = run_traced([sys.executable, "-ISc", script], seconds=0.5)
    assert traced == (-9, "\n", "", ["write"], False, True)
