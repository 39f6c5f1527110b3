"""The image as it is really built from this host's packages."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from scripts.ensure_images import TEST_IMAGE
from tests.system.image.conftest import building

from kata_runtime.guest.image import build_image, image_is_current

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_INITRD = 25_000_000


@pytest.mark.usefixtures("other_build")
def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """Two builds differ in no byte, replace what was there, are recorded truly, keep within the size limit."""
    shutil.copytree(TEST_IMAGE, tmp_path / "image")
    assert not image_is_current(tmp_path / "image")
    steps: list[str] = []
    with building(tmp_path / "other") as other:
        built = build_image(tmp_path / "image", progress=steps.append)
        others = {path.name: path.read_bytes() for path in other.wait().iterdir()}
    files = {path.name: path.read_bytes() for path in built.directory.iterdir()}
    assert files == others
    assert sorted(files) == ["image.json", "initrd.img", "vmlinuz"]
    recorded = json.loads(files["image.json"])
    assert recorded["sha256"] == {name: hashlib.sha256(files[name]).hexdigest() for name in ("initrd.img", "vmlinuz")}
    assert recorded["release"] == built.release
    assert built.initrd_size <= _LARGEST_INITRD
    assert image_is_current(tmp_path / "image")
    assert not image_is_current(tmp_path / "image", ["ethtool"])
    assert sorted(tmp_path.iterdir()) == [tmp_path / "image", tmp_path / "other"]
