"""Building: a failure is one line and leaves the image that was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.guest.image.images import content, make_image

from kata_runtime.errors import ConflictError, HostError, InputError
from kata_runtime.guest.image import build_image, image_is_current
from kata_runtime.guest.image.guest_python import python_version
from kata_runtime.guest.image.packages import resolve

if TYPE_CHECKING:
    from pathlib import Path


def _ignore(_step: str) -> None:
    """Show no progress."""


def _old_image(directory: Path) -> dict[str, bytes]:
    return make_image(directory, b"old kernel")


def test_unknown_package_leaves_the_old_image(tmp_path: Path) -> None:
    """A package that apt does not know is named, and the old image stays."""
    old = _old_image(tmp_path / "image")
    with pytest.raises(HostError) as caught:
        build_image(tmp_path / "image", include=["no-such-package-here"], progress=_ignore)
    assert str(caught.value) == (
        "apt-get failed: E: Unable to locate package no-such-package-here; run apt-get update and try again"
    )
    assert (content(tmp_path / "image"), sorted(tmp_path.iterdir())) == (old, [tmp_path / "image"])


def test_directory_of_a_user_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    """A destination with somebody's files is named with the first of them, and they stay."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/notes.txt").write_bytes(b"mine")
    steps: list[str] = []
    with pytest.raises(ConflictError) as caught:
        build_image(tmp_path / "home", progress=steps.append)
    assert str(caught.value) == (
        f"'{tmp_path}/home' is not an image: it holds 'notes.txt'; name a new or empty directory, or an image's own"
    )
    assert (content(tmp_path / "home"), steps) == ({"notes.txt": b"mine"}, [])


@pytest.mark.parametrize("name", ["", "-o", "--yes", "a b", "Big", "x/../y", "a\n"])
def test_hostile_package_names(tmp_path: Path, name: str) -> None:
    """A name that could be an option or no package at all never reaches apt."""
    with pytest.raises(InputError) as caught:
        build_image(tmp_path / "image", include=[name], progress=_ignore)
    assert str(caught.value) == f"{name!r} is not a Debian package name; lower case letters, digits, + . -"


def test_kernel_needs_its_modules(tmp_path: Path) -> None:
    """A kernel without modules is refused before anything is done."""
    with pytest.raises(InputError) as caught:
        build_image(tmp_path / "image", kernel=tmp_path / "vmlinuz", progress=_ignore)
    assert str(caught.value) == "--kernel and --modules must be given together"


def test_own_kernel_that_is_not_there(tmp_path: Path) -> None:
    """A kernel file that does not exist is a readable error, and the old image stays."""
    old = _old_image(tmp_path / "image")
    (tmp_path / "6.1").mkdir()
    with pytest.raises(HostError) as caught:
        build_image(tmp_path / "image", kernel=tmp_path / "none", modules=tmp_path / "6.1", progress=_ignore)
    assert (
        str(caught.value) == f"cannot build the image '{tmp_path}/image': '{tmp_path}/none': No such file or directory"
    )
    assert content(tmp_path / "image") == old


def test_image_is_current_only_when_complete(tmp_path: Path) -> None:
    """Nothing, half an image and a description that is no JSON are all out of date."""
    assert not image_is_current(tmp_path / "none")
    _old_image(tmp_path / "image")
    (tmp_path / "image/initrd.img").unlink()
    assert not image_is_current(tmp_path / "image")
    (tmp_path / "image/image.json").write_bytes(b"\xff{")
    assert not image_is_current(tmp_path / "image")


def test_closure_holds_the_c_library() -> None:
    """Resolution starts from nothing, what this host has installed included; the release has one Python."""
    names = {package.name for package in resolve(["python3-minimal"])}
    version = python_version(names)
    assert {"libc6", f"libpython{version}-minimal", f"python{version}-minimal", "zlib1g"} <= names


def test_release_without_python() -> None:
    """Packages without an interpreter are an error that names the releases that have one."""
    with pytest.raises(HostError) as caught:
        python_version(["python3-minimal", "python3.11", "libpython3.11-minimal"])
    assert str(caught.value) == "python3-minimal depends on no interpreter; build from Debian 12 or 13"
