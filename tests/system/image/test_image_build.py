"""The image as it is really built from this host's packages."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from kata_runtime.guest.image import build_image, image_is_current

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_INITRD = 25_000_000


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """Two builds differ in no byte, replace each other, are recorded truly, keep within the size limit."""
    steps: list[str] = []
    first = build_image(tmp_path / "image", progress=steps.append)
    before = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    second = build_image(tmp_path / "image", progress=steps.append)
    after = {path.name: path.read_bytes() for path in second.directory.iterdir()}
    assert (first, before) == (second, after)
    assert sorted(after) == ["image.json", "initrd.img", "vmlinuz"]
    recorded = json.loads(after["image.json"])
    assert recorded["sha256"] == {name: hashlib.sha256(after[name]).hexdigest() for name in ("initrd.img", "vmlinuz")}
    assert recorded["release"] == second.release
    assert second.initrd_size <= _LARGEST_INITRD
    assert image_is_current(tmp_path / "image")
    assert not image_is_current(tmp_path / "image", ["ethtool"])
    assert list(tmp_path.iterdir()) == [tmp_path / "image"]
