"""Files that are replaced whole."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from kata_runtime.sandbox.files import remove_tree, replace_whole
from kata_runtime.sandbox.record import Record
from kata_runtime.sandbox.session import Session

if TYPE_CHECKING:
    from pathlib import Path


class _EndError(BaseException):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError, _EndError])
def test_a_failure_leaves_the_previous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: type[BaseException]
) -> None:
    """When writing fails or is interrupted the previous content is there, and nothing else is left."""
    path = tmp_path / "file"
    replace_whole(str(path), b"previous")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(failure):
        replace_whole(str(path), b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"previous")]


def test_a_signal_waits_for_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle of saving is raised when the session knows what is on disk."""

    def end(_number: int, _frame: object) -> None:
        raise _EndError

    def replace(source: str, target: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.rename(source, target)

    (tmp_path / "web").mkdir()
    session = Session(str(tmp_path), Record("web"))
    before = signal.signal(signal.SIGTERM, end)
    try:
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(_EndError):
            session.save(Record("web", pid=7))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert session.record == Record("web", pid=7)
    assert [entry.name for entry in (tmp_path / "web").iterdir()] == ["record.json"]


def test_a_tree_is_removed(tmp_path: Path) -> None:
    """A directory goes with files, links and directories in it; what links point to stays."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"x")
    (tree / "a/link").symlink_to(outside)
    (tree / "broken").symlink_to(tmp_path / "nosuch")
    os.mkfifo(tree / "fifo")
    remove_tree(str(tree))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "outside"]
    with pytest.raises(FileNotFoundError):
        remove_tree(str(tree))


def test_files_that_appear_meanwhile_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock goes last, and one that a waiting command has made anew before the directory went goes, too."""
    tree = tmp_path / "web"
    tree.mkdir()
    for name in ("lock", "a", "z"):
        (tree / name).touch()
    removed: list[str] = []
    unlink, rmdir = os.unlink, os.rmdir

    def unlinked(path: str) -> None:
        removed.append(os.path.basename(path))
        unlink(path)

    def appears(path: str) -> None:
        if len(removed) < 5:
            (tree / "lock").touch()
        rmdir(path)

    monkeypatch.setattr(os, "unlink", unlinked)
    monkeypatch.setattr(os, "rmdir", appears)
    remove_tree(str(tree), last="lock")
    assert (sorted(removed[:2]), removed[2:], list(tmp_path.iterdir())) == (["a", "z"], ["lock"] * 3, [])
