"""Where an image may be put, and that it comes to be there whole and without a trace."""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.unit.guest.image.images import content, image_files, make_image

from kata_runtime.errors import ConflictError, HostError
from kata_runtime.guest.image import install as installing
from kata_runtime.guest.image.install import install, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

_HINT = "name a new or empty directory, or an image's own"
_NEW = image_files(b"new kernel")


def _nothing(_directory: Path) -> None:
    """Leave the destination missing."""


def _old(directory: Path) -> None:
    make_image(directory, b"old kernel")


def _old_behind_a_link(directory: Path) -> None:
    make_image(directory.with_name("elsewhere"), b"old kernel")
    directory.symlink_to("elsewhere")


@pytest.mark.parametrize("before", [_nothing, Path.mkdir, _old, _old_behind_a_link])
def test_image_takes_the_place(tmp_path: Path, before: Callable[[Path], None]) -> None:
    """Nothing, an empty directory and an image are replaced; nothing is left beside the new one."""
    before(tmp_path / "image")
    beside = {*tmp_path.iterdir(), tmp_path / "image"}
    install(tmp_path / "image", _NEW)
    assert (content(tmp_path / "image"), set(tmp_path.iterdir())) == (_NEW, beside)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "image").iterdir()}
    modes["."] = (tmp_path / "image").stat().st_mode & 0o7777
    assert modes == {".": 0o755, "vmlinuz": 0o644, "initrd.img": 0o644, "image.json": 0o644}


def test_directories_above_are_made(tmp_path: Path) -> None:
    """A destination several directories deep needs none of them."""
    install(tmp_path / "a/b/image", _NEW)
    assert content(tmp_path / "a/b/image") == _NEW


def _user_file(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "notes.txt").write_bytes(b"mine")


def _own_kernel(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "vmlinuz").write_bytes(b"my own kernel")


def _no_description(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "image.json").unlink()


def _other_description(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "image.json").write_bytes(b'{"mine": 1}')


def _deep_description(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "image.json").write_bytes(b"[" * 100_000)


def _no_initrd(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "initrd.img").unlink()


def _linked_kernel(directory: Path) -> None:
    make_image(directory, b"old kernel")
    (directory / "vmlinuz").rename(directory.with_name("kernel"))
    (directory / "vmlinuz").symlink_to("../kernel")


def _file(path: Path) -> None:
    path.write_bytes(b"mine")


@pytest.mark.parametrize(
    ("before", "flaw"),
    [
        (_user_file, "it holds 'notes.txt'"),
        (_own_kernel, "vmlinuz is not as it was built"),
        (_no_description, "image.json describes none"),
        (_other_description, "image.json describes none"),
        (_deep_description, "image.json describes none"),
        (_no_initrd, "initrd.img is not as it was built"),
        (_linked_kernel, "vmlinuz is not as it was built"),
        (_file, "it is no directory"),
    ],
)
def test_anything_else_stays(tmp_path: Path, before: Callable[[Path], None], flaw: str) -> None:
    """What is not an image to the last byte is refused, by the early look and by the late one, and stays."""
    before(tmp_path / "image")
    everything = sorted((path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*") if path.parent != tmp_path)
    for attempt in (prepare, lambda destination: install(destination, _NEW)):
        with pytest.raises(ConflictError) as caught:
            attempt(tmp_path / "image")
        assert str(caught.value) == f"'{tmp_path}/image' is not an image: {flaw}; {_HINT}"
    assert everything == sorted(
        (path, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*") if path.parent != tmp_path
    )
    assert not list(tmp_path.glob(".image.build-*"))


def test_file_put_there_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's file that comes between the look and the exchange is put back with the image that it is in."""
    old = make_image(tmp_path / "image", b"old kernel")
    exchange = installing._exchange

    def late(one: str, other: str) -> None:
        (tmp_path / "image/notes.txt").write_bytes(b"mine")
        monkeypatch.setattr(installing, "_exchange", exchange)
        exchange(one, other)

    monkeypatch.setattr(installing, "_exchange", late)
    with pytest.raises(ConflictError) as caught:
        install(tmp_path / "image", _NEW)
    assert str(caught.value) == f"'{tmp_path}/image' is not an image: it holds 'notes.txt'; {_HINT}"
    assert content(tmp_path / "image") == {**old, "notes.txt": b"mine"}
    assert list(tmp_path.iterdir()) == [tmp_path / "image"]


def test_file_system_without_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where directories cannot be exchanged an image is kept and the user told what to do."""
    old = make_image(tmp_path / "image", b"old kernel")

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr("kata_runtime.guest.image.install.c_function", lambda _name: refuse)
    with pytest.raises(HostError) as caught:
        install(tmp_path / "image", _NEW)
    assert str(caught.value) == (
        f"cannot replace the image '{tmp_path}/image': its file system does not exchange directories; "
        "remove it first, or name another directory"
    )
    assert (content(tmp_path / "image"), list(tmp_path.iterdir())) == (old, [tmp_path / "image"])


def test_builds_at_the_same_time(tmp_path: Path) -> None:
    """Of many builds to one destination each succeeds, one whole image stays and nothing else."""
    images = [image_files(b"kernel %d" % number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda files: install(tmp_path / "image", files), images))
    assert content(tmp_path / "image") in images
    assert list(tmp_path.iterdir()) == [tmp_path / "image"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    """Half an image in a scratch directory goes; one in use, one with other files and one of a link's stay."""
    stale, used, foreign = (tmp_path / f".image.build-{name}" for name in ("stale", "used", "foreign"))
    for scratch in (stale, used, foreign):
        (scratch / "new").mkdir(parents=True)
        (scratch / "new/vmlinuz").write_bytes(b"half a ker")
    (foreign / "new/notes.txt").write_bytes(b"mine")
    (tmp_path / ".image.build-link").symlink_to("elsewhere")
    (tmp_path / "elsewhere").mkdir()
    opened = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        prepare(tmp_path / "image")
    finally:
        os.close(opened)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {
        "elsewhere", ".image.build-link",
        ".image.build-used", ".image.build-used/new", ".image.build-used/new/vmlinuz",
        ".image.build-foreign", ".image.build-foreign/new", ".image.build-foreign/new/vmlinuz",
        ".image.build-foreign/new/notes.txt",
    }  # fmt: skip


def test_full_disk_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written ends the build; the old image stays and half a new one does not."""
    old = make_image(tmp_path / "image", b"old kernel")

    def full(_fd: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        install(tmp_path / "image", _NEW)
    assert (content(tmp_path / "image"), list(tmp_path.iterdir())) == (old, [tmp_path / "image"])
