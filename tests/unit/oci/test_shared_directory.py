"""Bind mounts of a pod's shared directory, in a mount namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from kata_runtime.oci.guest_config import Share
from kata_runtime.oci.shared_directory import make_shared_directory, share, unshare
from kata_runtime.sandbox.mounts import mounts_below, remove_mounts

if TYPE_CHECKING:
    from pathlib import Path


def _elsewhere(test: str, directory: Path) -> None:
    """Call a function of this module in a mount namespace of its own."""
    script = "import sys; sys.path[:0] = sys.argv[1:3]\nfrom pathlib import Path\n"
    script += f"from tests.unit.oci import test_shared_directory as here\nhere.{test}(Path(sys.argv[3]))"
    argv = ["unshare", "--mount", "--propagation", "shared", sys.executable, "-c", script]
    done = subprocess.run([*argv, "src", ".", str(directory)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _write(path: str) -> str:
    try:
        with open(path, "w", encoding="ascii"):
            return "written"
    except OSError as error:
        return error.strerror or ""


def shared_and_removed(directory: Path) -> None:
    """The body of the test below."""
    root, sandbox = directory / "a root", directory / "sandbox"
    for made in (root, sandbox, root / "below"):
        made.mkdir()
    (root / "file").write_text("kept")
    served = make_shared_directory(str(sandbox))
    assert served == str(sandbox / "shared")
    shares = [
        Share("rootfs", str(root), is_directory=True),
        Share("mount1", str(root), is_directory=True, options=("rbind", "ro")),
        Share("mount2", str(root / "file"), is_directory=False),
    ]
    for name in ("upper", "work"):
        (directory / name).mkdir()
    overlay = (f"lowerdir={root}", f"upperdir={directory}/upper", f"workdir={directory}/work")
    shares.append(Share("mount3", "merged", is_directory=True, options=overlay, is_overlay=True))
    share(str(sandbox), "c1", shares, {"a": 1})
    seen = {name: sorted(os.listdir(f"{served}/c1/{name}")) for name in ("", "rootfs", "mount1", "mount3")}
    assert seen == {
        "": ["config.json", "mount1", "mount2", "mount3", "rootfs"], "rootfs": ["below", "file"],
        "mount1": ["below", "file"], "mount3": ["below", "file"],
    }  # fmt: skip
    with open(f"{served}/c1/config.json", encoding="ascii") as file:
        assert file.read() == '{"a":1}'
    # As the guest's virtiofsd sees it: the root file system alone can be written.
    places = ("c1/rootfs/new", "c1/mount3/over", "c1/mount1/new", "c1/new", "c1/config.json", "new")
    assert [_write(f"{served}/{place}") for place in places] == ["written", "written", *["Read-only file system"] * 4]
    with open(f"{served}/c1/rootfs/file", encoding="ascii"):
        unshare(str(sandbox), "c1")  # though a file is open
    assert (os.listdir(served), sorted(os.listdir(root))) == ([], ["below", "file", "new"])
    assert os.listdir(directory / "upper") == ["over"]
    unshare(str(sandbox), "c1")
    share(str(sandbox), "c2", shares, {})
    remove_mounts(str(sandbox))
    assert (mounts_below(str(sandbox)), sorted(os.listdir(root))) == ([], ["below", "file", "new"])


def test_shared_and_removed(tmp_path: Path) -> None:
    """What is shared appears in what is served, read-only where asked; taking it away touches nothing behind it."""
    _elsewhere("shared_and_removed", tmp_path)
