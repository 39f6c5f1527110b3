"""The examples in the documents are run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conformance.podman_configuration import own_state
from tests.system.conftest import PROGRAM

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Runtime

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NIC = """{"device":"tap_test","name":"eth-test","IPAddresses":[{"address":"172.16.0.3","mask":"16"}],
 "hwAddr":"02:42:20:6e:03:01","mtu":1500}
"""
DOCUMENTS = sorted(
    str(path.relative_to(_ROOT))
    for path in [_ROOT / "README.md", *(_ROOT / "docs").glob("*.md")]
    if _BLOCK.search(path.read_text())
)


def _examples(text: str) -> list[tuple[str, str]]:
    """Command lines and what each prints."""
    found: list[tuple[str, str]] = []
    for block in _BLOCK.findall(text):
        for line in block.splitlines(keepends=True):
            if line.startswith("# "):
                found.append((line[2:].rstrip("\n"), ""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def _matches(expected: str, actual: str) -> bool:
    """``...`` stands for anything within a line, and columns may be wider or narrower."""
    pattern = "[^\n]*".join(re.escape(part) for part in expected.split("..."))
    pattern = re.sub(r"(\\ )+", " +", pattern)
    return re.fullmatch(pattern, actual) is not None


def _podman_environment(directory: Path, program: Path) -> dict[str, str]:
    """Where Podman finds a configuration like the documents', with images and containers of its own."""
    (directory / "containers.conf").write_text(
        f"""
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["kata"]
{own_state(directory)}[engine.runtimes]
kata = ["{program}"]
[network]
network_config_dir = "{directory}"
"""
    )
    (directory / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/podman"\nrunroot = "{directory}/run"\n'
    )
    return {
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_print_what_is_written(
    document: str, runtime: Runtime, namespace: Namespace, tmp_path: Path, rootfs: Path
) -> None:
    """Each command line of a document, in its order, prints what it shows and succeeds, unless ``echo $?`` says not."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").symlink_to(rootfs / "bin/busybox")
    program = tmp_path / "bin/kata-runtime"
    # A root of its own: the documents list all that there is.
    root = tmp_path / "root"
    program.write_text(f'#!/bin/sh\nexec {PROGRAM} --kata-config {runtime.config} --root {root} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "nic.json").write_text(_NIC)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "KATA_CONF_FILE": str(runtime.config),
        **_podman_environment(tmp_path, program),
    }
    status = 0
    try:
        for command, expected in _examples((_ROOT / document).read_text()):
            if command == "echo $?":
                assert (status, expected) == (int(expected), f"{status}\n"), document
                status = 0
                continue
            assert status == 0, (document, "the command before failed", command)
            done = subprocess.run(
                [*namespace.prefix, "sh", "-c", command], cwd=tmp_path, env=environment, text=True, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180,
            )  # fmt: skip
            assert _matches(expected, done.stdout), (command, expected, done.stdout)
            status = done.returncode
        assert status == 0, (document, "the last command failed")
    finally:
        if (tmp_path / "podman").exists():
            subprocess.run(["podman", "rm", "--all", "--force", "--time", "0"], env=environment, check=True)
            subprocess.run(["podman", "rmi", "--all"], env=environment, check=True)
        left = subprocess.run([program, "list", "--quiet"], capture_output=True, text=True, check=True).stdout.split()
        for name in left:
            subprocess.run([program, "delete", "--force", name], check=True)
    assert left == []
