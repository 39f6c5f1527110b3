"""Counts of commands: kept in a file of fixed size that no accident makes a command fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kata_runtime.sandbox.operation_counters import (
    BOUNDS,
    OPERATIONS,
    Counts,
    count,
    count_for_root,
    counted,
    read_counts,
    read_root_counts,
)

if TYPE_CHECKING:
    from pathlib import Path


def _buckets(**places: int) -> tuple[int, ...]:
    found = [0] * (len(BOUNDS) + 1)
    for place, number in places.items():
        found[int(place[1:])] = number
    return tuple(found)


def test_counts(tmp_path: Path) -> None:
    """Successes are counted by duration, up to and with each bound, failures apart; operations do not mix."""
    path = str(tmp_path / "operations")
    for seconds in (0.0, 0.01, 0.011, 0.3, 31.0):
        count(path, "add-iface", seconds, is_failure=False)
    count(path, "add-iface", 5.0, is_failure=True)
    count(path, "cleanup", 0.5, is_failure=False)
    assert read_counts(path) == {
        "add-iface": Counts(1, 0.0 + 0.01 + 0.011 + 0.3 + 31.0, _buckets(_0=2, _1=1, _5=1, _11=1)),
        "cleanup": Counts(0, 0.5, _buckets(_5=1)),
    }
    assert (tmp_path / "operations").stat().st_mode & 0o777 == 0o600


def test_block(tmp_path: Path) -> None:
    """A block that an exception ends is a failure, and the exception passes."""
    path = str(tmp_path / "operations")
    with counted(path, "restore"):
        pass
    with pytest.raises(KeyboardInterrupt), counted(path, "restore"):
        raise KeyboardInterrupt
    found = read_counts(path)["restore"]
    assert (found.failures, sum(found.buckets)) == (1, 1)


def test_bounded(tmp_path: Path) -> None:
    """However often commands are counted, the file stays below two KiB."""
    path = str(tmp_path / "operations")
    for operation in OPERATIONS * 20:
        count(path, operation, 1.0, is_failure=False)
    assert os.stat(path).st_size <= 2048
    assert {operation: sum(counts.buckets) for operation, counts in read_counts(path).items()} == dict.fromkeys(
        OPERATIONS, 20
    )


def test_other_commands_are_not_counted(tmp_path: Path) -> None:
    """A command without a slot makes no file."""
    count(str(tmp_path / "operations"), "list-ifaces", 1.0, is_failure=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 5000, bytes(4096)], ids=["empty", "short", "ones", "zeros"])
def test_damaged(tmp_path: Path, damage: bytes) -> None:
    """Whatever is in the file, counting goes on from there or from 0."""
    path = tmp_path / "operations"
    path.write_bytes(damage)
    assert read_counts(str(path)) == {}
    count(str(path), "boot", 1.0, is_failure=False)
    assert read_counts(str(path)) == {"boot": Counts(0, 1.0, _buckets(_6=1))}


def test_no_directory(tmp_path: Path) -> None:
    """Where nothing can be written, nothing happens."""
    path = str(tmp_path / "none" / "operations")
    count(path, "boot", 1.0, is_failure=False)
    assert read_counts(path) == {}


def test_counts_of_a_root(tmp_path: Path) -> None:
    """For a root is counted from when somebody reads it: before, and where there is no root, nothing is made."""
    root = str(tmp_path)
    count_for_root(root, "boot", 1.0, is_failure=True)
    assert (list(tmp_path.iterdir()), read_root_counts(str(tmp_path / "none"))) == ([], {})
    assert read_root_counts(root) == {}
    count_for_root(root, "boot", 1.0, is_failure=True)
    assert read_root_counts(root) == {"boot": Counts(failures=1)}
