"""The mount namespace of a shim, as others find it who enter it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kata_runtime.oci.shim_mounts import View, show_container_files
from kata_runtime.sandbox.mounts import remove_mounts

_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h


def _write(path: str) -> str:
    try:
        Path(path).write_text("new")
    except OSError as error:
        return error.strerror or ""
    return "written"


def enter_and_print(directory: str, read_only: str) -> None:
    """Make a shim that shows files below ``directory``, and print what it sees itself, and what one sees who enters."""
    points = [("/data", f"{directory}/volume"), ("/tmp", ""), ("/tmp/x", f"{directory}/volume"), ("/file", "")]
    view = View(f"{directory}/root", read_only == "ro", points)
    subprocess.run(["mount", "-t", "tmpfs", "other", f"{directory}/other"], check=True)
    ready, told = os.pipe()
    over, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        show_container_files(view, [f"{directory}/volume"])
        os.write(told, json.dumps([os.path.exists("/proc/self"), sorted(os.listdir(f"{directory}/volume"))]).encode())
        os.read(over, 1)
        os._exit(0)
    seen = json.loads(os.read(ready, 4096))
    remove_mounts(f"{directory}/other")
    seen.append(f"{directory}/other" in Path(f"/proc/{pid}/mountinfo").read_text())
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    assert ctypes.CDLL(None).setns(namespace, _CLONE_NEWNS) == 0
    names = {name: sorted(os.listdir(name)) for name in ("/", "/data", "/tmp")}
    written = [_write(path) for path in ("/made", "/link/made", "/data/made", "/tmp/made", "/file")]
    os.close(end)
    os.waitpid(pid, 0)
    sys.stdout.write(json.dumps([seen, names, written]))


def _run(directory: Path, read_only: str, propagation: str) -> object:
    script = "import sys; sys.path[:0] = sys.argv[1:3]\n"
    script += "from tests.unit.oci import test_shim_mounts as here\nhere.enter_and_print(*sys.argv[3:])"
    argv = ["unshare", "--mount", "--propagation", propagation, sys.executable, "-c", script, "src", "."]
    done = subprocess.run([*argv, str(directory), read_only], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("propagation", ["shared", "private"])
def test_what_others_see(tmp_path: Path, propagation: str) -> None:
    """Who enters the shim's mount namespace sees the container's files, with its volumes; the shim sees the host's.

    A file system that the host unmounts is not kept by the shim.
    """
    for name in ("root/data", "root/tmp", "volume", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/file").write_text("")
    (tmp_path / "root/link").symlink_to("/data")
    (tmp_path / "root/tmp/hidden").write_text("")
    (tmp_path / "volume/a").write_text("")
    names = {"/": ["data", "file", "link", "tmp"], "/data": ["a"], "/tmp": []}
    only = "Read-only file system"
    written = ["written", "written", "written", only, "written"]
    assert _run(tmp_path, "rw", propagation) == [[True, ["a"], False], names, written]
    names = {"/": ["data", "file", "link", "made", "tmp"], "/data": ["a", "made"], "/tmp": []}
    written = [only, "written", "written", only, only]
    assert _run(tmp_path, "ro", propagation) == [[True, ["a", "made"], False], names, written]
    assert sorted(os.listdir(tmp_path / "volume")) == ["a", "made"]
    assert sorted(os.listdir(tmp_path / "root/tmp")) == ["hidden"]
