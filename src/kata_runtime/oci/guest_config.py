"""Translates a bundle's config.json to the one that crun reads in the guest, without side effects."""

from __future__ import annotations

import os

from kata_runtime.errors import InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.oci.bundle import pid_of_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from kata_runtime.oci.bundle import Bundle, Mount

# Mount points in the guest of the pod's shared directory, and of the memory file systems that its containers share.
GUEST_SHARED = "/run/kata-runtime/shared"
GUEST_MEMORY = "/run/kata-runtime/memory"

_VERSION = "1.0.2"
ROOT = "rootfs"
_SHARED_MEMORY = "/dev/shm"
# Sources below these are not shared by the host: they are taken from the VM.
_GUEST_TREES = ("/proc", "/sys", "/dev")
# crun(1), "EXTENSIONS TO OCI"; podman run --group-add keep-groups
_KEEP_GROUPS = "run.oci.keep_original_groups"
_FIRST_FREE_PORT = "net.ipv4.ip_unprivileged_port_start"
_UTS_SYSCTLS = ("kernel.hostname", "kernel.domainname")
# Documentation/filesystems/overlayfs.rst: options without a value
_OVERLAY_FLAGS = ("userxattr", "volatile")
# On hosts with cgroups of version 1, for containers that run systemd.
_SYSTEMD_CGROUPS = "/sys/fs/cgroup/systemd"
_DOTS_AND_SLASHES = str.maketrans("./", "/.")


class Source(NamedTuple):
    """A bind mount's source: its ``kind``, such as file or directory, and the size of its file system in bytes."""

    kind: str
    device: int = 0
    inode: int = 0
    size: int = 0


class Share(NamedTuple):
    """A path of the host, or an overlay, that is shared as ``name`` in the container's directory in the guest."""

    name: str
    source: str
    is_directory: bool
    options: tuple[str, ...] = ()
    is_overlay: bool = False


class MemoryFiles(NamedTuple):
    """A tmpfs in the guest that containers of the pod share; ``size`` in bytes."""

    path: str
    size: int


class MountPoint(NamedTuple):
    """A path in a container, and the name of the share that is mounted there, empty for what only the guest has."""

    destination: str
    share: str


class GuestConfig(NamedTuple):
    """The guest's config.json, and what must be set up before crun reads it.

    ``hostname`` and ``sysctls`` are set for the VM itself, since its namespaces are the pod's.
    """

    document: dict[str, object]
    shares: tuple[Share, ...]
    mount_points: tuple[MountPoint, ...]
    memory_files: tuple[MemoryFiles, ...]
    hostname: str
    sysctls: dict[str, str]


def guest_bundle(container_id: str) -> str:
    """The path of a container's bundle in the guest."""
    return f"{GUEST_SHARED}/{container_id}"


def guest_cgroup(container_id: str) -> str:
    """The cgroup of a container in the guest."""
    return f"/kata/{container_id}"


def guest_config(
    bundle: Bundle,
    container_id: str,
    *,
    owns_pod: bool,
    inspect: Callable[[str], Source],
    guest_pid: Callable[[int], int],
    groups: Sequence[int] = (),
) -> GuestConfig:
    """Translate ``bundle``; the first container of a pod ``owns_pod``.

    ``inspect`` describes a path of the host, ``guest_pid`` maps a shim's pid to that in the guest; ``groups`` are the
    caller's, which an annotation of crun requests to keep.

    :raise InputError: a mount or namespace cannot reach into a VM.
    """
    shares = [Share(ROOT, bundle.root, is_directory=True)]
    memory_files: list[MemoryFiles] = []
    mounts, points = _mounts(bundle, container_id, inspect, shares, memory_files)
    namespaces = _namespaces(bundle, guest_pid, owns_pod=owns_pod)
    private = {str(entry["type"]) for entry in namespaces}
    document: dict[str, Any] = {
        **bundle.document,
        "ociVersion": _VERSION,
        "root": {**_object(bundle.document, "root"), "path": ROOT},
        "mounts": mounts,
    }
    hostname = ""
    if "uts" not in private:
        hostname = bundle.hostname if owns_pod else ""
        document.pop("hostname", None)
        document.pop("domainname", None)
    _set(document, "hooks", _guest_hooks(bundle))
    process = guest_process(_object(bundle.document, "process"))
    if process and bundle.annotations.get(_KEEP_GROUPS) == "1":
        process["user"] = _with_groups(_object(process, "user"), groups)
        # crun itself would keep the agent's groups.
        _set(document, "annotations", {key: value for key, value in bundle.annotations.items() if key != _KEEP_GROUPS})
    _set(document, "process", process)
    kept, sysctls = _split_sysctls(_sysctls(bundle, owns_pod=owns_pod), private)
    document["linux"] = _linux(_object(bundle.document, "linux"), container_id, namespaces, kept)
    return GuestConfig(document, tuple(shares), tuple(points), tuple(memory_files), hostname, sysctls)


def _mounts(
    bundle: Bundle,
    container_id: str,
    inspect: Callable[[str], Source],
    shares: list[Share],
    memory_files: list[MemoryFiles],
) -> tuple[list[dict[str, object]], list[MountPoint]]:
    """The mounts for crun, and what is mounted where; adds to ``shares`` and ``memory_files`` what they need."""
    mounts: list[dict[str, object]] = []
    points = []
    for mount in _without_old_cgroups(bundle.mounts):
        known = len(shares)
        kind, source, options = _guest_mount(mount, own_users="user" in bundle.namespaces)
        if mount.is_overlay:
            source = _share_overlay(mount, container_id, shares)
        elif mount.is_bind:
            source = _guest_source(mount, container_id, inspect(mount.source), shares, memory_files)
        mounts.append({"destination": mount.destination, "type": kind, "source": source, "options": options})
        points.append(MountPoint(mount.destination, shares[-1].name if len(shares) > known else ""))
    return mounts, points


def guest_process(process: dict[str, object]) -> dict[str, object]:
    """An OCI process without the labels of the host's security modules, which the guest does not have."""
    return {key: value for key, value in process.items() if key not in ("apparmorProfile", "selinuxLabel")}


def _guest_mount(mount: Mount, *, own_users: bool) -> tuple[str, str, list[str]]:
    """A mount's type, source and options in the guest, for a container with or without a user namespace."""
    if mount.kind == "sysfs" and own_users:
        # sysfs can be mounted only in the user namespace that owns the network namespace (fs/sysfs/mount.c): the VM's.
        return "bind", "/sys", ["rbind", *mount.options]
    if mount.is_overlay:
        return "bind", mount.source, ["rbind", *(option for option in mount.options if not _is_about_overlay(option))]
    return mount.kind, mount.source, list(mount.options)


def _without_old_cgroups(mounts: Sequence[Mount]) -> list[Mount]:
    """The mounts without systemd's hierarchy of cgroups of version 1: it may write to the guest's version 2 instead."""
    kept = [mount for mount in mounts if not (mount.is_bind and os.path.normpath(mount.source) == _SYSTEMD_CGROUPS)]
    if len(kept) == len(mounts):
        return kept
    return [
        mount._replace(options=tuple(option for option in mount.options if option != "ro"))
        if mount.kind == "cgroup"
        else mount
        for mount in kept
    ]


def _is_about_overlay(option: str) -> bool:
    return "=" in option or option in _OVERLAY_FLAGS


def _share_overlay(mount: Mount, container_id: str, shares: list[Share]) -> str:
    options = tuple(filter(_is_about_overlay, mount.options))
    share = Share(f"mount{len(shares)}", mount.source, is_directory=True, options=options, is_overlay=True)
    shares.append(share)
    return f"{guest_bundle(container_id)}/{share.name}"


def _with_groups(user: dict[str, object], groups: Sequence[int]) -> dict[str, object]:
    given = user.get("additionalGids")
    return {**user, "additionalGids": [*(given if isinstance(given, list) else []), *groups]}


def _guest_source(
    mount: Mount, container_id: str, source: Source, shares: list[Share], memory_files: list[MemoryFiles]
) -> str:
    if os.path.normpath(mount.destination) == _SHARED_MEMORY:
        # Processes in the VM could not share mappings of a host's tmpfs. The pod's containers that mount the same
        # source get one tmpfs in the guest.
        files = MemoryFiles(f"{GUEST_MEMORY}/{source.device}-{source.inode}", source.size)
        memory_files.append(files)
        return files.path
    path = os.path.normpath(mount.source)
    if any(path == tree or path.startswith(f"{tree}/") for tree in _GUEST_TREES):
        return path
    if source.kind not in ("file", "directory"):
        raise InputError(
            f"the mount of {mount.source} at {mount.destination} is not possible: it is {source.kind}",
            field="mounts",
            hint="a VM shares files and directories",
        )
    share = Share(f"mount{len(shares)}", mount.source, source.kind == "directory", mount.options)
    shares.append(share)
    return f"{guest_bundle(container_id)}/{share.name}"


def _namespaces(bundle: Bundle, guest_pid: Callable[[int], int], *, owns_pod: bool) -> list[dict[str, str]]:
    """The namespaces for crun, without those that the pod's containers share: the VM's own network, ipc and uts."""
    found = []
    # A new user namespace may not mount file systems of an ipc namespace that another one owns.
    shares_with_vm = owns_pod and "user" not in bundle.namespaces
    for kind, path in bundle.namespaces.items():
        if kind == "network" or (kind in ("ipc", "uts") and (path or shares_with_vm)):
            continue
        entry = {"type": kind}
        if kind == "pid" and path:
            process = pid_of_namespace(path)
            if process is None:
                raise InputError(f"the pid namespace {path} belongs to no container of this pod", field="namespaces")
            entry["path"] = f"/proc/{guest_pid(process)}/ns/pid"
        found.append(entry)
    if "cgroup" not in bundle.namespaces:
        # Engines on a host with cgroups of version 1 leave it out; the guest has version 2, where it is useful.
        found.append({"type": "cgroup"})
    return found


def _sysctls(bundle: Bundle, *, owns_pod: bool) -> dict[str, str]:
    """The container's sysctls, and one for the ports below 1024 that a user namespace would give it.

    On a host its network namespace would belong to that, and CAP_NET_BIND_SERVICE count there; the VM's does not.
    """
    capabilities = _object(_object(bundle.document, "process"), "capabilities").get("effective")
    binds = isinstance(capabilities, list) and "CAP_NET_BIND_SERVICE" in capabilities
    is_own = owns_pod and "user" in bundle.namespaces and bundle.namespaces.get("network") == ""
    return {_FIRST_FREE_PORT: "0", **bundle.sysctl} if is_own and binds else bundle.sysctl


def _split_sysctls(sysctl: dict[str, str], private: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The sysctls for crun, and those for the VM itself."""
    kept, outside = {}, {}
    for name, value in sysctl.items():
        namespace = "network" if name.startswith("net.") else "uts" if name in _UTS_SYSCTLS else "ipc"
        if namespace in private:
            kept[name] = value
        else:
            # sysctl(8): dots and slashes are exchanged, as in net.ipv4.conf.eth0/100.forwarding.
            outside[name.translate(_DOTS_AND_SLASHES)] = value
    return kept, outside


def _linux(
    linux: dict[str, object], container_id: str, namespaces: list[dict[str, str]], sysctl: dict[str, str]
) -> dict[str, object]:
    made = {key: value for key, value in linux.items() if key not in ("mountLabel", "sysctl", "devices")}
    # crun has fixed addresses itself, and this gives its programs random ones (personality(2), PER_LINUX).
    made["personality"] = linux.get("personality") or {"domain": "LINUX"}
    _set(made, "resources", linux.get("resources"))
    _set(made, "devices", linux.get("devices"))
    _set(made, "sysctl", sysctl)
    return {**made, "cgroupsPath": guest_cgroup(container_id), "namespaces": namespaces}


def _guest_hooks(bundle: Bundle) -> dict[str, object] | None:
    """The hooks for the guest: only startContainer, whose program is in the container; the host runs the others."""
    hooks = _object(bundle.document, "hooks").get("startContainer")
    return {"startContainer": hooks} if hooks else None


def _set(document: dict[str, Any], key: str, value: object) -> None:
    document.pop(key, None)
    if value:
        document[key] = value


def _object(document: dict[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
