"""Images as they are really built. A build uses one processor: those of all tests here run at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.quality.trees import ROOT
from tests.system.conftest import PROGRAM
from tests.system.image.private_apt import apt_configuration, other_release

from kata_runtime.guest.image import DEFAULT_DESTINATION

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 300


class Build:
    """A running ``image build``."""

    def __init__(self, destination: Path, **variables: str) -> None:
        self._destination = destination
        self._process = subprocess.Popen(
            [PROGRAM, "image", "build", "--destination", str(destination)],
            env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def wait(self) -> Path:
        """Where the image is, once it is built."""
        printed, progress = self._process.communicate(timeout=_SECONDS)
        assert (self._process.returncode, printed) == (0, f"{self._destination}\n"), progress
        return self._destination

    def stop(self) -> None:
        """End it, if it runs."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def building(destination: Path, **variables: str) -> Iterator[Build]:
    """Start to build an image; at the end nothing runs any more."""
    build = Build(destination, **variables)
    try:
        yield build
    finally:
        build.stop()


@pytest.fixture(scope="package")
def other_build() -> Iterator[Build]:
    """An image of the release that this host does not have, where QEMU's unprivileged user can read it."""
    release = other_release()
    # Kept from run to run: a second one fetches only what has changed.
    apt = apt_configuration(ROOT / "build" / f"apt-debian-{release}", release)
    directory = Path(tempfile.mkdtemp(dir=Path(DEFAULT_DESTINATION).parent, prefix=f"debian-{release}-"))
    try:
        directory.chmod(0o755)
        with building(directory / "image", APT_CONFIG=str(apt)) as build:
            yield build
    finally:
        shutil.rmtree(directory)
