"""Parses a bundle's config.json (OCI runtime specification, "Configuration"), as far as the host needs it.

The rest is passed to crun in the guest by ``guest_config``; properties that a VM cannot have are refused here.
"""

from __future__ import annotations

import os

from kata_runtime.errors import InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.oci.json_object import read_json_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.oci.json_object import JsonObject

CONFIG = "config.json"
# Hooks that run on the host. crun runs startContainer in the guest, since its program is in the container's files.
HOST_HOOKS = ("prestart", "createRuntime", "poststart", "poststop")
_NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup")
# Namespaces that only the containers of one pod can share, since they are inside its VM.
_JOINABLE = ("pid", "network", "ipc", "uts")
# The sysctls of ipc_namespaces(7).
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_MESSAGE_QUEUES = "fs.mqueue."
_HOSTNAME_BYTES = 64  # include/uapi/linux/utsname.h: __NEW_UTS_LEN


_OF_BLOCK_DEVICES = ("weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice",
                     "throttleWriteIOPSDevice")  # fmt: skip


class Mount(NamedTuple):
    """An entry of ``mounts``."""

    destination: str
    kind: str
    source: str
    options: tuple[str, ...]

    @property
    def is_bind(self) -> bool:
        """Whether the source is a file or directory of the host."""
        return self.kind in ("bind", "rbind") or "bind" in self.options or "rbind" in self.options

    @property
    def is_overlay(self) -> bool:
        """Whether it is an overlay of directories of the host, as of Podman's ``--volume DIR:DIR:O`` or an image."""
        return self.kind == "overlay"


class Hook(NamedTuple):
    """A program that the engine requests to be run; ``timeout`` in seconds, 0 for none."""

    path: str
    argv: tuple[str, ...]
    environment: tuple[str, ...]
    timeout: int


class Bundle(NamedTuple):
    """A parsed bundle; ``namespaces`` maps kinds to paths, ``""`` for a new one."""

    directory: str
    root: str
    read_only: bool
    terminal: bool
    rows: int
    columns: int
    hostname: str
    mounts: tuple[Mount, ...]
    namespaces: dict[str, str]
    annotations: dict[str, str]
    hooks: dict[str, tuple[Hook, ...]]
    cgroups_path: str
    sysctl: dict[str, str]
    document: dict[str, object]


def read_bundle(directory: str) -> Bundle:
    """The bundle in ``directory``.

    :raise HostError: its config.json cannot be read.
    :raise InputError: it is invalid, or requests what a VM cannot do.
    """
    directory = os.path.abspath(directory)
    return bundle_of(directory, read_json_file(os.path.join(directory, CONFIG), CONFIG))


def pid_of_namespace(path: str) -> int | None:
    """The process whose namespace ``path`` is, such as /proc/7/ns/net; None for another path."""
    match path.split("/"):
        case ["", "proc", pid, "ns", kind] if (
            pid.isascii() and pid.isdecimal() and kind.isascii() and kind.isalpha() and kind.islower()
        ):
            return int(pid)
    return None


def _is_known(version: str) -> bool:
    """Whether it is a semantic version with the major number 1."""
    if "\n" in version:
        return False
    numbers = version.replace("+", "-").partition("-")[0].split(".")
    return len(numbers) == 3 and numbers[0] == "1" and all(one.isascii() and one.isdecimal() for one in numbers)


def bundle_of(directory: str, config: JsonObject) -> Bundle:
    """The bundle that ``config`` describes. :raise InputError: as for ``read_bundle``."""
    version = config.text("ociVersion")
    if not _is_known(version):
        raise InputError(f"{CONFIG}: ociVersion is {version!a}", hint="1.0.2 and later versions 1 are known")
    linux = config.child("linux")
    _refuse_sections(config, linux)
    namespaces = _namespaces(linux)
    sysctl = linux.text_map("sysctl")
    _check_sysctls(sysctl, namespaces)
    _check_hostname(config.text("hostname"))
    root = config.child("root").text("path")
    process = config.child("process")
    if not root:
        raise InputError(f"{CONFIG}: root.path is missing", field="root.path")
    return Bundle(
        directory=directory,
        root=os.path.join(directory, root),
        read_only=config.child("root").flag("readonly"),
        terminal=process.flag("terminal"),
        rows=process.child("consoleSize").number("height"),
        columns=process.child("consoleSize").number("width"),
        hostname=config.text("hostname"),
        mounts=tuple(_mount(directory, item) for item in config.children("mounts")),
        namespaces=namespaces,
        annotations=config.text_map("annotations"),
        hooks=_hooks(config.child("hooks")),
        cgroups_path=linux.text("cgroupsPath"),
        sysctl=sysctl,
        document=config.fields,
    )


def _refuse_sections(config: JsonObject, linux: JsonObject) -> None:
    for name in ("windows", "solaris", "vm", "zos", "freebsd"):
        if config.has(name):
            raise InputError(f"{CONFIG}: a section for {name!a} means nothing here", field=name)
    if not config.has("linux"):
        raise InputError(f"{CONFIG}: linux is missing", field="linux")
    for name, what in (("intelRdt", "the host's cache allocation"), ("netDevices", "network devices of the host"),
                       ("timeOffsets", "time namespaces")):  # fmt: skip
        if linux.child(name).fields:
            raise InputError(f"{CONFIG}: linux.{name}: {what} cannot reach into a VM", field=f"linux.{name}")
    for name in _OF_BLOCK_DEVICES:
        if linux.child("resources").child("blockIO").fields.get(name):
            raise InputError(
                f"{CONFIG}: linux.resources.blockIO.{name}: block devices of the host cannot reach into a VM",
                field=f"linux.resources.blockIO.{name}",
            )
    if linux.child("seccomp").has("listenerPath"):
        raise InputError(
            f"{CONFIG}: linux.seccomp.listenerPath: no program of the host can serve a guest's system calls"
        )
    if config.child("hooks").fields.get("createContainer"):
        raise InputError(
            f"{CONFIG}: hooks.createContainer: the container's mount namespace is in the guest, out of a hook's reach",
            field="hooks.createContainer",
        )


def _namespaces(linux: JsonObject) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in linux.children("namespaces"):
        kind, path = item.text("type"), item.text("path")
        if kind not in _NAMESPACES:
            raise InputError(f"{item.where}: there are no namespaces {kind!a} for containers in a VM")
        if kind in found:
            raise InputError(f"{item.where}: the namespace {kind} is named twice")
        if path and kind not in _JOINABLE:
            raise InputError(f"{item.where}: a {kind} namespace of the host ({path}) cannot be shared with a VM")
        found[kind] = path
    if "network" not in found:
        raise InputError(
            f"{CONFIG}: the host's network cannot be shared with a VM",
            field="linux.namespaces",
            hint="give the container a network namespace",
        )
    if "mount" not in found:
        raise InputError(f"{CONFIG}: the host's mounts cannot be shared with a VM", field="linux.namespaces")
    return found


def _check_sysctls(sysctl: dict[str, str], namespaces: dict[str, str]) -> None:
    """Refuse those of a namespace that the container does not have (net. is always there), as runc and crun do."""
    for name in sysctl:
        if name == "kernel.hostname":
            raise InputError(f"{CONFIG}: linux.sysctl: {name} is not possible", hint="hostname is a field of its own")
        of_ipc = name in _IPC_SYSCTLS or name.startswith(_MESSAGE_QUEUES)
        needed = "uts" if name == "kernel.domainname" else "ipc" if of_ipc else ""
        if needed and needed not in namespaces:
            raise InputError(f"{CONFIG}: linux.sysctl: {name} needs the container to have an {needed} namespace")


def _mount(directory: str, item: JsonObject) -> Mount:
    options = item.texts("options")
    mount = Mount(item.text("destination"), item.text("type"), item.text("source"), options)
    if not mount.destination:
        raise InputError(f"{item.where}: destination is missing")
    if mount.is_bind:
        # A relative source is relative to the bundle.
        mount = mount._replace(source=os.path.join(directory, mount.source))
    mapped = any(option.partition("=")[0] in ("idmap", "ridmap") for option in options)
    if mapped or item.has("uidMappings") or item.has("gidMappings"):
        raise InputError(f"{item.where}: mounts with mapped users are not possible with virtiofs")
    return mount


def _hooks(section: JsonObject) -> dict[str, tuple[Hook, ...]]:
    return {name: tuple(_hook(hook) for hook in section.children(name)) for name in HOST_HOOKS if section.has(name)}


def _hook(item: JsonObject) -> Hook:
    hook = Hook(item.text("path"), item.texts("args"), item.texts("env"), item.number("timeout"))
    if not hook.path.startswith("/"):
        raise InputError(f"{item.where}.path is {hook.path!a}", hint="it must be an absolute path of this host")
    if item.has("timeout") and hook.timeout <= 0:
        raise InputError(f"{item.where}.timeout is {hook.timeout}", hint="it must be more than 0 seconds")
    return hook


def _check_hostname(hostname: str) -> None:
    """Refuse what sethostname(2) would; the kernel silently shortens what is written to its sysctl."""
    if len(hostname.encode(errors="surrogatepass")) > _HOSTNAME_BYTES or "\n" in hostname:
        raise InputError(
            f"{CONFIG}: hostname is {hostname[: _HOSTNAME_BYTES + 1]!a}",
            hint=f"it must be one line of at most {_HOSTNAME_BYTES} bytes",
        )
