"""Finds the pod of a new container, by the engine's annotations or by the namespaces that it is to share."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError, InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.oci.bundle import pid_of_namespace
from kata_runtime.oci.container import STOPPED, load_container
from kata_runtime.sandbox.identity import sandbox_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.oci.bundle import Bundle
    from kata_runtime.oci.container import Container

# (key of the kind, its value for a member, key of the sandbox's ID): CRI-O's, which Podman uses, and containerd's.
_ANNOTATIONS = (
    ("io.kubernetes.cri-o.ContainerType", "container", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.cri.container-type", "container", "io.kubernetes.cri.sandbox-id"),
)


class Known(NamedTuple):
    """A snapshot of the engines' containers below a root."""

    containers: tuple[Container, ...]

    def with_shim(self, pid: int) -> Container | None:
        """The container whose shim is process ``pid`` of the host."""
        return next((one for one in self.containers if one.shim == pid and one.current_status() != STOPPED), None)

    def guest_pid(self, pid: int) -> int:
        """The pid in the guest of the process whose shim is ``pid``. :raise InputError: ``pid`` is no shim."""
        container = self.with_shim(pid)
        if container is None:
            raise InputError(f"process {pid} is not the shim of a container of kata-runtime", field="linux.namespaces")
        return container.guest_pid


def known_containers(root: str) -> Known:
    """All containers of engines whose records can be read. :raise HostError: the directory cannot be read."""
    found = []
    for container_id in sandbox_ids(root):
        try:
            container = load_container(root, container_id)
        except HostError:
            # Commands on that container report it, others need not fail.
            continue
        if container is not None:
            found.append(container)
    return Known(tuple(found))


def sandbox_for(bundle: Bundle, known: Known) -> str | None:
    """The ID of the sandbox that a container of ``bundle`` joins; None if it needs a new one.

    :raise InputError: it names namespaces of no sandbox or of two, or another network namespace than its pod's.
    """
    sandbox = _sandbox_of_annotations(bundle, known) or _sandbox_of_namespaces(bundle, known)
    owner = next((one for one in known.containers if one.container_id == sandbox), None)
    path = bundle.namespaces["network"]
    # If the pod's first container has ended, its network namespace cannot be compared any more.
    comparable = owner is not None and owner.current_status() != STOPPED
    if sandbox is not None and comparable and _sandbox_of_path("network", path, known) != sandbox:
        raise InputError(
            f"sandbox {sandbox!a} has a network of its own", field="namespaces", hint="the container must share that"
        )
    return sandbox


def _sandbox_of_annotations(bundle: Bundle, known: Known) -> str | None:
    for kind, value, key in _ANNOTATIONS:
        if bundle.annotations.get(kind) == value:
            named = bundle.annotations.get(key, "")
            for container in known.containers:
                if named in (container.container_id, container.sandbox_id):
                    return container.sandbox_id
    return None


def _sandbox_of_namespaces(bundle: Bundle, known: Known) -> str | None:
    found: dict[str, str] = {}
    for kind, path in bundle.namespaces.items():
        if not path:
            continue
        sandbox = _sandbox_of_path(kind, path, known)
        if sandbox is not None:
            found[kind] = sandbox
        elif kind == "pid" or (kind in ("ipc", "uts") and pid_of_namespace(path) is not None):
            raise InputError(
                f"the {kind} namespace {path} belongs to no container of kata-runtime",
                field="linux.namespaces",
                hint="only containers of one VM can share it",
            )
    sandboxes = set(found.values())
    if len(sandboxes) > 1:
        raise InputError(
            f"the namespaces {', '.join(found)} belong to different VMs",
            field="linux.namespaces",
            hint="only containers of one VM can share namespaces",
        )
    return sandboxes.pop() if sandboxes else None


def _sandbox_of_path(kind: str, path: str, known: Known) -> str | None:
    process = pid_of_namespace(path)
    if process is not None and (container := known.with_shim(process)) is not None:
        return container.sandbox_id
    if kind != "network":
        return None
    # The interfaces of a network namespace can be connected to one VM only.
    wanted = _identity(path)
    for container in known.containers:
        if wanted and container.owns_pod and _identity(f"/proc/{container.shim}/ns/net") == wanted:
            return container.sandbox_id if container.current_status() != STOPPED else None
    return None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
