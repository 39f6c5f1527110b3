"""Images of a few bytes, as far as their files and their description go."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def image_files(kernel: bytes) -> dict[str, bytes]:
    """The three files of an image that differs by ``kernel`` from others."""
    files = {"vmlinuz": kernel, "initrd.img": b"initrd of " + kernel}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, "image.json": json.dumps({"sha256": digests}).encode()}


def make_image(directory: Path, kernel: bytes) -> dict[str, bytes]:
    """Write them, as a build would have."""
    files = image_files(kernel)
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return files


def content(directory: Path) -> dict[str, bytes]:
    """The files of a directory without subdirectories."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}
