"""Two runs of these tests at once: what one Podman does to its own containers means nothing to the other's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.system.engines.conftest import Podman


def test_reset_of_another_podman(podman: Podman) -> None:
    """The reset of another Podman frees no lock of this one's pods and containers."""
    # In a directory of pytest's the paths would be longer than Podman takes.
    with podman.removed("kept", "pod"), tempfile.TemporaryDirectory(prefix="kata-podman-") as directory:
        podman.run("pod", "create", "--name", "pod", "--infra=false")
        podman.run("create", "--name", "kept", "--pod", "pod", "localhost/tiny", "true")
        other = Podman(Path(directory), podman.namespace, podman.runtime, podman.image)
        other.run("create", "--name", "kept", "--rootfs", directory, "true")
        other.run("system", "reset", "--force")
        done = podman.attempt("ps", "--all", "--format", "{{.Names}} {{.State}}")
    # With common locks Podman reports on stderr which ones it could not take again.
    assert (done.returncode, done.stdout, done.stderr) == (0, "kept Created\n", "")
