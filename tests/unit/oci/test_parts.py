"""Cgroups of engines, hooks, statistics and the sources of mounts."""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import ConflictError, HostError, InputError
from kata_runtime.guest.crun import Usage
from kata_runtime.oci.bundle import Hook, read_bundle
from kata_runtime.oci.features import write_spec
from kata_runtime.oci.guest_config import Source
from kata_runtime.oci.hooks import run_hooks, run_late_hooks
from kata_runtime.oci.host_cgroup import cgroup_directories
from kata_runtime.oci.json_object import JsonObject
from kata_runtime.oci.network_following import add_to_log
from kata_runtime.oci.pid_file import write_pid_file
from kata_runtime.oci.process_check import check_process
from kata_runtime.oci.resource_update import changed_resources, check_resources
from kata_runtime.oci.sources import inspect_source
from kata_runtime.oci.statistics import statistics

if TYPE_CHECKING:
    from pathlib import Path

_MOUNTINFO = [
    "31 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755",
    "32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw",
    "33 31 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory",
    "34 31 0:29 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset",
]
_CGROUPS = [
    ("", False, []),
    ("/engine/c1", False, ["/sys/fs/cgroup/unified/engine/c1", "/sys/fs/cgroup/memory/engine/c1"]),
    (
        "machine-a.slice:libpod:c1", True,
        [
            f"/sys/fs/cgroup/{name}/machine.slice/machine-a.slice/libpod-c1.scope" for name in ("unified", "memory")
        ],
    ),
    (":docker:c1", True, [f"/sys/fs/cgroup/{name}/system.slice/docker-c1.scope" for name in ("unified", "memory")]),
]  # fmt: skip

_BELOW = "it must name a group below the root of the hierarchy, without '..'"


@pytest.mark.parametrize(("path", "systemd", "directories"), _CGROUPS)
def test_cgroups_path(path: str, systemd: bool, directories: list[str]) -> None:
    """A path names a directory in each hierarchy in which something is counted, in systemd's spelling, too."""
    assert cgroup_directories(path, _MOUNTINFO, systemd=systemd) == directories


@pytest.mark.parametrize(
    ("path", "systemd", "message"),
    [
        ("/a/../../b", False, f"linux.cgroupsPath is '/a/../../b'; {_BELOW}"),
        ("/", False, f"linux.cgroupsPath is '/'; {_BELOW}"),
        ("/a/b", True, "linux.cgroupsPath is '/a/b'; with --systemd-cgroup it is slice:prefix:name"),
        ("a.slice:../x:b", True, f"linux.cgroupsPath is 'a.slice:../x:b'; {_BELOW}"),
    ],
)
def test_cgroups_path_that_leads_elsewhere(path: str, systemd: bool, message: str) -> None:
    """A path that is none, or leads out of the hierarchy, is refused."""
    with pytest.raises(InputError) as raised:
        cgroup_directories(path, _MOUNTINFO, systemd=systemd)
    assert str(raised.value) == message


def _hook(tmp_path: Path, script: str, timeout: int = 0) -> Hook:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Hook(str(path), ("name", "x"), ("A=b",), timeout)


def test_hook_gets_the_state(tmp_path: Path) -> None:
    """A hook runs with its arguments, its environment alone, and the state on its standard input."""
    run_hooks([_hook(tmp_path, 'echo "$1 $A $HOME" > out; cat >> out')], {"pid": 7}, str(tmp_path))
    assert (tmp_path / "out").read_text() == 'x b \n{"pid": 7}'


def test_hook_without_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that names no environment has that of the runtime."""
    monkeypatch.setenv("OF_THE_RUNTIME", "yes")
    run_hooks([_hook(tmp_path, 'echo "$OF_THE_RUNTIME" > out')._replace(environment=())], {}, str(tmp_path))
    assert (tmp_path / "out").read_text() == "yes\n"


def test_hook_that_fails(tmp_path: Path) -> None:
    """A hook that fails, hangs or is missing is reported, with its output."""
    hook = _hook(tmp_path, "echo bad luck >&2; exit 3")
    cases = [
        (hook, f"the hook {hook.path} ended with status 3: bad luck"),
        (hook._replace(path="/nosuch"), "cannot run the hook /nosuch: No such file or directory"),
    ]
    for failing, message in cases:
        with pytest.raises(HostError) as raised:
            run_hooks([failing], {}, str(tmp_path))
        assert str(raised.value) == message
    with pytest.raises(HostError) as hanging:
        run_hooks([_hook(tmp_path, "exec cat /dev/zero > /dev/null", timeout=1)], {}, str(tmp_path))
    assert str(hanging.value) == f"the hook {hook.path} has not ended within 1 s"


def test_late_hooks_that_fail(tmp_path: Path) -> None:
    """A hook after start or delete that fails is a warning, and the hooks behind it are run."""
    warnings: list[str] = []
    failing, last = Hook("/bin/false", (), (), 0), _hook(tmp_path, "echo ran > out")
    run_late_hooks([failing, last], {}, str(tmp_path), warnings.append)
    assert warnings == ["the hook /bin/false ended with status 1: without a message"]
    assert (tmp_path / "out").read_text() == "ran\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": []}, "the process: args is missing; it must begin with the program to run"),
        ({"args": ["a", 1]}, "the process: args[1] is '1'; it must be a string"),
        ({"env": "A=b"}, "the process: env is 'A=b'; it must be a list"),
        ({"capabilities": "CAP_KILL"}, "the process: capabilities is 'CAP_KILL'; it must be an object"),
        ({"user": {"uid": 1 << 32}}, f"the process: user.uid is {1 << 32}; it must be from 0 to {(1 << 32) - 2}"),
        ({"user": {"gid": -1}}, f"the process: user.gid is -1; it must be from 0 to {(1 << 32) - 2}"),
        (
            {"user": {"additionalGids": [5, (1 << 32) - 1]}},
            f"the process: user.additionalGids[1] is {(1 << 32) - 1}; it must be from 0 to {(1 << 32) - 2}",
        ),
    ],
)
def test_process_that_is_refused(changes: dict[str, object], message: str) -> None:
    """A process without a program, or with users that cannot exist, is refused by its field."""
    with pytest.raises(InputError) as raised:
        check_process(JsonObject("the process: ", {"args": ["a"], **changes}))
    assert str(raised.value) == message


def test_process_that_is_accepted() -> None:
    """Users at both ends of their range are accepted, and a process without a user."""
    check_process(JsonObject("the process: ", {"args": ["a"]}))
    user = {"uid": 0, "gid": (1 << 32) - 2, "additionalGids": [7]}
    check_process(JsonObject("the process: ", {"args": ["a"], "env": ["A=b"], "user": user}))


def test_network_log(tmp_path: Path) -> None:
    """Lines are added to the network log, which begins anew when it is large; where it cannot grow, nothing fails."""
    path = tmp_path / "network.log"
    for note in ("one", "two"):
        add_to_log(str(tmp_path), note)
    assert path.read_text() == "one\ntwo\n"
    path.write_text("x" * 65_537)
    add_to_log(str(tmp_path), "anew")
    assert path.read_text() == "anew\n"
    path.unlink()
    path.symlink_to("/dev/full")
    add_to_log(str(tmp_path), "three")
    add_to_log(str(tmp_path / "nosuch"), "four")


def test_statistics() -> None:
    """The guest's counts in runc's words and units; no limit is 0."""
    usage = Usage(
        {"usage_usec": 5, "user_usec": 3, "system_usec": 2, "nr_periods": 1, "nr_throttled": 4, "throttled_usec": 6},
        {"anon": 8}, {"max": 9}, 100, None, 7, 50,
    )  # fmt: skip
    assert statistics("c", usage) == {
        "type": "stats",
        "id": "c",
        "data": {
            "cpu": {
                "usage": {"total": 5000, "kernel": 2000, "user": 3000},
                "throttling": {"periods": 1, "throttledPeriods": 4, "throttledTime": 6000},
            },
            "memory": {"usage": {"limit": 0, "usage": 100, "failcnt": 9}, "raw": {"anon": 8}},
            "pids": {"current": 7, "limit": 50},
        },
    }


def test_sources_of_mounts(tmp_path: Path) -> None:
    """Files, directories and sockets are distinguished; what is missing is named."""
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert inspect_source(str(tmp_path / "socket")).kind == "a socket"
    system = os.statvfs(tmp_path)
    for name, kind in (("file", "file"), ("", "directory")):
        found = os.stat(tmp_path / name)
        size = system.f_blocks * system.f_frsize
        assert inspect_source(str(tmp_path / name)) == Source(kind, found.st_dev, found.st_ino, size)
    with pytest.raises(HostError) as missing:
        inspect_source("/nosuch")
    assert str(missing.value) == "cannot mount /nosuch: No such file or directory"


def test_pid_file(tmp_path: Path) -> None:
    """It holds the number alone; without a path there is none."""
    write_pid_file("", 1)
    write_pid_file(str(tmp_path / "pid"), 4711)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("pid", "4711")]


def test_refused_pid_file(tmp_path: Path) -> None:
    """A pid file that cannot be written is refused with the reason, and no half of it is left."""
    (tmp_path / "pid").mkdir()
    with pytest.raises(HostError) as refusal:
        write_pid_file(str(tmp_path / "pid"), 4711)
    assert str(refusal.value) == f"cannot write the pid file {tmp_path}/pid: Is a directory"
    assert os.listdir(tmp_path) == ["pid"]


def test_spec_is_a_bundle(tmp_path: Path) -> None:
    """What spec writes can be created; it replaces nothing."""
    write_spec(str(tmp_path))
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) & 0o400
    made = read_bundle(str(tmp_path))
    assert (made.root, json.loads((tmp_path / "config.json").read_text())) == (f"{tmp_path}/rootfs", made.document)
    with pytest.raises(ConflictError) as raised:
        write_spec(str(tmp_path))
    assert str(raised.value) == f"{tmp_path}/config.json exists already; remove it, or give another --bundle"


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"memory": {"limit": "1g"}}, "--resources: memory.limit is '1g'; it must be a whole number"),
        ({"cpu": {"cpus": 1}}, "--resources: cpu.cpus is '1'; it must be a string"),
        ({"pids": 5}, "--resources: pids is '5'; it must be an object"),
    ],
)
def test_limits_of_a_wrong_type(resources: dict[str, object], message: str) -> None:
    """A limit that crun would ignore for its type is refused."""
    check_resources(JsonObject("--resources: ", {"memory": {"limit": 5}, "cpu": {"cpus": "0"}}))
    with pytest.raises(InputError) as raised:
        check_resources(JsonObject("--resources: ", resources))
    assert str(raised.value) == message


def test_update_leaves_what_is_zero() -> None:
    """Limits of 0 stay as they are, as with runc; what 0 means something for is changed, and devices are left out."""
    sent: dict[str, object] = {
        "devices": [{"allow": False}],
        "memory": {"limit": 1 << 20, "reservation": 0, "swap": -1, "kernel": 0, "swappiness": 0},
        "cpu": {"shares": 0, "cpus": "", "mems": ""},
        "blockIO": {"weight": 0},
        "pids": {"limit": 0},
    }
    expected = {"memory": {"limit": 1 << 20, "swap": -1, "swappiness": 0}, "pids": {"limit": 0}}
    assert changed_resources(sent) == expected
