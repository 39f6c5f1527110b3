"""Cgroups that engines reserve on hosts with version 2, which must count what is in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.system.engines.conftest import CGROUP_PREFIX

from kata_runtime.oci import host_cgroup
from kata_runtime.sandbox import cgroup


def test_controllers_reach_a_group_of_version_2() -> None:
    """A group three levels below the root of version 2 gets every controller that the root has, as engines need it."""
    levels = [f"{CGROUP_PREFIX}{letter}" for letter in "abc"]
    path = "/" + "/".join(levels)
    mounts = [line for line in host_cgroup.host_mountinfo() if " - cgroup2 " in line]
    (group,) = host_cgroup.cgroup_directories(path, mounts, systemd=False)
    root = Path(group.removesuffix(path))
    expected = (root / "cgroup.controllers").read_text()
    try:
        with subprocess.Popen(["sleep", "100"]) as process:
            cgroup.join([group], process.pid, 10, counted=True)
            found = [Path(group, name).read_text() for name in ("cgroup.controllers", "cgroup.procs")]
            process.kill()
        # Where version 1 has taken all controllers, there is nothing that could be handed on.
        assert (found, expected != "\n") == ([expected, f"{process.pid}\n"], True)
    finally:
        cgroup.remove([str(directory) for directory in [Path(group), *Path(group).parents[:2]]])
