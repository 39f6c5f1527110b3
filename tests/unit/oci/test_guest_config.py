"""From an engine's config.json to the guest's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.oci.test_bundle import bundle, linux

from kata_runtime.errors import InputError
from kata_runtime.oci.guest_config import (
    GuestConfig,
    MemoryFiles,
    MountPoint,
    Share,
    Source,
    guest_config,
    guest_process,
)

if TYPE_CHECKING:
    from kata_runtime.oci.bundle import Bundle

_NAMESPACES = [{"type": kind} for kind in ("mount", "network", "pid", "ipc", "uts")]
_SOURCES = {
    "/host/dir": Source("directory", 1, 2, 100),
    "/host/file": Source("file", 1, 3, 100),
    "/run/shm": Source("directory", 39, 1, 65536),
    "/run/docker.sock": Source("a socket"),
    "/proc": Source("directory"),
}


def _converted(source: Bundle, *, owns_pod: bool = True) -> GuestConfig:
    return guest_config(source, "c1", owns_pod=owns_pod, inspect=_SOURCES.__getitem__, guest_pid={4711: 99}.__getitem__)


def _document(*, owns_pod: bool = True, **changes: object) -> Any:
    return _converted(bundle(**changes), owns_pod=owns_pod).document


def _everything() -> Bundle:
    return bundle(
        process={"args": ["sh"], "apparmorProfile": "x", "selinuxLabel": "y", "cwd": "/"},
        hostname="box",
        domainname="example",
        root={"path": "rootfs", "readonly": True},
        hooks={"prestart": [{"path": "/a"}], "startContainer": [{"path": "/b"}]},
        mounts=[
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/host/dir", "options": ["rbind", "ro"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/host/file", "options": ["bind"]},
            {"destination": "/dev/shm/", "type": "bind", "source": "/run/shm", "options": ["bind"]},
            {"destination": "/hostproc", "type": "bind", "source": "/proc", "options": ["rbind"]},
        ],
        linux=linux(
            namespaces=_NAMESPACES, cgroupsPath="/engine/c1", mountLabel="z",
            sysctl={"net.ipv4.ip_forward": "1", "kernel.shmmax": "9", "net.ipv4.conf.eth0/1.forwarding": "1"},
            resources={"devices": [{"allow": False}], "memory": {"limit": 1}},
            seccomp={"defaultAction": "SCMP_ACT_ALLOW"},
        ),
    )  # fmt: skip


def test_whole_document() -> None:
    """Root, mounts, namespaces and cgroup become the guest's; what is the host's alone is gone; the rest stays."""
    assert _converted(_everything()) == GuestConfig(
        document={
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": True},
            "process": {"args": ["sh"], "cwd": "/"},
            "hooks": {"startContainer": [{"path": "/b"}]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
                {
                    "destination": "/data", "type": "bind", "source": "/run/kata-runtime/shared/c1/mount1",
                    "options": ["rbind", "ro"],
                },
                {
                    "destination": "/etc/hosts", "type": "bind", "source": "/run/kata-runtime/shared/c1/mount2",
                    "options": ["bind"],
                },
                {
                    "destination": "/dev/shm/", "type": "bind", "source": "/run/kata-runtime/memory/39-1",
                    "options": ["bind"],
                },
                {"destination": "/hostproc", "type": "bind", "source": "/proc", "options": ["rbind"]},
            ],
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}],
                "cgroupsPath": "/kata/c1",
                "resources": {"devices": [{"allow": False}], "memory": {"limit": 1}},
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
                "personality": {"domain": "LINUX"},
            },
        },
        shares=(
            Share("rootfs", "/b/rootfs", is_directory=True),
            Share("mount1", "/host/dir", is_directory=True, options=("rbind", "ro")),
            Share("mount2", "/host/file", is_directory=False, options=("bind",)),
        ),
        mount_points=(
            MountPoint("/proc", ""), MountPoint("/data", "mount1"), MountPoint("/etc/hosts", "mount2"),
            MountPoint("/dev/shm/", ""), MountPoint("/hostproc", ""),
        ),
        memory_files=(MemoryFiles("/run/kata-runtime/memory/39-1", 65536),),
        hostname="box",
        sysctls={"net/ipv4/ip_forward": "1", "kernel/shmmax": "9", "net/ipv4/conf/eth0.1/forwarding": "1"},
    )  # fmt: skip


_CASES: list[tuple[str, bool, list[dict[str, str]], list[dict[str, str]]]] = [
    ("the first container has the VM's", True, [], []),
    ("new ones of a member are its own", False, [{"type": "ipc"}, {"type": "uts"}], [{"type": "ipc"}, {"type": "uts"}]),
    ("the pod's are the VM's", False, [{"type": "ipc", "path": "/a"}, {"type": "uts", "path": "/b"}], []),
    ("a user namespace needs its own", True, [{"type": "user"}, {"type": "ipc"}], [{"type": "user"}, {"type": "ipc"}]),
    (
        "a process's is that in the guest", False,
        [{"type": "pid", "path": "/proc/4711/ns/pid"}], [{"type": "pid", "path": "/proc/99/ns/pid"}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "owns_pod", "given", "kept"), _CASES, ids=[case[0] for case in _CASES])
def test_namespaces(name: str, owns_pod: bool, given: list[dict[str, str]], kept: list[dict[str, str]]) -> None:
    """Namespaces that the pod shares are the VM's own and not named; others are made in the guest."""
    first = [{"type": "network"}, {"type": "mount"}]
    made = _document(owns_pod=owns_pod, linux=linux(namespaces=[*first, *given, {"type": "cgroup"}]))
    assert made["linux"]["namespaces"] == [{"type": "mount"}, *kept, {"type": "cgroup"}]


def test_names_of_a_member_with_namespaces_of_its_own() -> None:
    """A member that has its own uts and ipc namespaces keeps hostname and sysctls for crun to set."""
    made = _converted(
        bundle(
            hostname="own",
            linux=linux(namespaces=_NAMESPACES, sysctl={"kernel.shmmax": "1", "net.a": "2"}),
        ),
        owns_pod=False,
    )
    assert (made.hostname, made.sysctls, made.document["hostname"]) == ("", {"net/a": "2"}, "own")
    assert made.document["linux"] == {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup")],
        "sysctl": {"kernel.shmmax": "1"},
        "cgroupsPath": "/kata/c1",
        "personality": {"domain": "LINUX"},
    }


_BINDS = {"args": ["sh"], "cwd": "/", "capabilities": {"effective": ["CAP_KILL", "CAP_NET_BIND_SERVICE"]}}
_USER, _NETWORK = {"type": "user"}, {"type": "network"}
_FREE = {"net/ipv4/ip_unprivileged_port_start": "0"}


@pytest.mark.parametrize(
    ("owns_pod", "namespaces", "process", "given", "expected"),
    [
        (True, [_USER, _NETWORK], _BINDS, {}, _FREE),
        (True, [_USER, _NETWORK], _BINDS, {"net.ipv4.ip_unprivileged_port_start": "80"}, dict.fromkeys(_FREE, "80")),
        (True, [_USER, _NETWORK], {"args": ["sh"], "cwd": "/"}, {}, {}),
        (True, [_NETWORK], _BINDS, {}, {}),
        (True, [_USER, {"type": "network", "path": "/run/netns/a"}], _BINDS, {}, {}),
        (False, [_USER, _NETWORK], _BINDS, {}, {}),
    ],
)
def test_low_ports_in_a_user_namespace(
    owns_pod: bool,
    namespaces: list[dict[str, str]],
    process: dict[str, object],
    given: dict[str, str],
    expected: dict[str, str],
) -> None:
    """A container that would own its network namespace by its user namespace, and may bind low ports, can in the VM."""
    source = bundle(process=process, linux=linux(namespaces=[{"type": "mount"}, *namespaces], sysctl=given))
    assert _converted(source, owns_pod=owns_pod).sysctls == expected


def test_personality() -> None:
    """One that the bundle names stays, such as that of programs for 32 bits."""
    document = _document(linux=linux(personality={"domain": "LINUX32"}))
    assert document["linux"]["personality"] == {"domain": "LINUX32"}


def test_sockets_and_foreign_namespaces_are_refused() -> None:
    """A socket of the host, and a pid namespace that is no container's, cannot reach into a VM."""
    with pytest.raises(InputError) as socket:
        _document(mounts=[{"destination": "/s", "type": "bind", "source": "/run/docker.sock", "options": ["bind"]}])
    assert str(socket.value) == (
        "the mount of /run/docker.sock at /s is not possible: it is a socket; a VM shares files and directories"
    )
    with pytest.raises(InputError) as namespace:
        _document(linux=linux(namespaces=[*_NAMESPACES[:2], {"type": "pid", "path": "/run/pidns"}]))
    assert str(namespace.value) == "the pid namespace /run/pidns belongs to no container of this pod"


def test_process_of_exec() -> None:
    """A process object loses the labels of the host's security modules and nothing else."""
    assert guest_process({"args": ["a"], "apparmorProfile": "x", "selinuxLabel": "y"}) == {"args": ["a"]}


def test_groups_of_the_caller() -> None:
    """An annotation adds the caller's groups to the container's, and does not reach crun in the guest."""
    process = {"args": ["sh"], "user": {"uid": 1, "gid": 2, "additionalGids": [3]}}
    source = bundle(process=process, annotations={"run.oci.keep_original_groups": "1", "a": "b"})
    made = guest_config(
        source, "c1", owns_pod=True, inspect=_SOURCES.__getitem__, guest_pid={4711: 99}.__getitem__, groups=[4, 5]
    ).document
    assert made["process"] == {"args": ["sh"], "user": {"uid": 1, "gid": 2, "additionalGids": [3, 4, 5]}}
    assert made["annotations"] == {"a": "b"}


def test_sysfs_of_a_user_namespace() -> None:
    """A container with users of its own gets the VM's sysfs bound, since the network namespace is not its own."""
    mounts = [{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]}]
    namespaces = [{"type": kind} for kind in ("mount", "network", "user")]
    assert _document(mounts=mounts, linux=linux(namespaces=namespaces))["mounts"] == [
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "ro"]}
    ]
    assert _document(mounts=mounts)["mounts"] == mounts


def test_overlays() -> None:
    """An overlay of the host's directories is mounted on the host, and bound in the guest with its other options."""
    layers = ["lowerdir=/a:/b", "upperdir=/c", "workdir=/d"]
    mount = {"destination": "/data", "type": "overlay", "source": "/merge", "options": [*layers, "private", "nodev"]}
    made = _converted(bundle(mounts=[mount]))
    assert made.document["mounts"] == [
        {
            "destination": "/data",
            "type": "bind",
            "source": "/run/kata-runtime/shared/c1/mount1",
            "options": ["rbind", "private", "nodev"],
        }
    ]
    assert made.shares[1:] == (Share("mount1", "/merge", is_directory=True, options=tuple(layers), is_overlay=True),)
    assert made.mount_points == (MountPoint("/data", "mount1"),)


def test_systemd_of_a_host_with_old_cgroups() -> None:
    """Where engines give systemd its hierarchy of version 1, it may write to the guest's cgroups of version 2."""
    cgroups = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nodev", "ro"]}
    name = "/sys/fs/cgroup/systemd"
    systemd = {"destination": name, "type": "bind", "source": name, "options": ["bind", "rprivate"]}
    assert _document(mounts=[cgroups])["mounts"] == [cgroups]
    assert _document(mounts=[cgroups, systemd])["mounts"] == [{**cgroups, "options": ["nodev"]}]
