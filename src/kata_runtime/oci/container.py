"""The record of an engine's container, a JSON file in the container's own directory."""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime.errors import HostError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.oci.bundle import Hook
from kata_runtime.sandbox.files import replace_whole
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import is_alive
from kata_runtime.sandbox.record import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"


class Container(NamedTuple):
    """A container; the first one of a pod has the sandbox's ID.

    ``shim`` and ``shim_start_time`` identify its shim process in the host's boot ``boot_id``; ``cgroups`` are the
    directories where it is counted. ``poststop`` hooks are stored since engines may remove the bundle before they run.
    ``files`` are the sources of volumes that are files.
    """

    container_id: str
    sandbox_id: str
    bundle: str
    created: str
    annotations: dict[str, str]
    status: str = CREATING
    shim: int = 0
    shim_start_time: int = 0
    guest_pid: int = 0
    cgroups: tuple[str, ...] = ()
    poststop: tuple[Hook, ...] = ()
    boot_id: str = ""
    files: tuple[str, ...] = ()

    @property
    def owns_pod(self) -> bool:
        """Whether the sandbox was created for this container."""
        return self.container_id == self.sandbox_id

    def current_status(self) -> str:
        """The status in the runtime specification's terms; a container is stopped when its shim has ended."""
        if is_alive(self.shim, self.shim_start_time):
            return self.status
        return self.status if self.status == CREATING and not self.shim else STOPPED


def load_container(root: str, container_id: str) -> Container | None:
    """Read a container's record; None if there is no such container of an engine.

    :raise HostError: its record cannot be read or is damaged.
    """
    path = SandboxPaths(os.path.join(root, container_id)).container
    try:
        with open(path, "rb") as file:
            document = fast_json.loads(file.read().decode())
        container = _container_of(document)
        return container if container.boot_id == boot_id() else container._replace(shim=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError.of(f"cannot read {path}", error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HostError(f"{path} is damaged: {error}", hint="delete --force the container") from error


def save_container(root: str, container: Container) -> None:
    """Replace a container's record. :raise HostError: it cannot be written."""
    document: dict[str, Any] = {"version": VERSION, **container._asdict()}
    document["poststop"] = [hook._asdict() for hook in container.poststop]
    path = SandboxPaths(os.path.join(root, container.container_id)).container
    try:
        replace_whole(path, fast_json.dumps(document).encode())
    except OSError as error:
        raise HostError.of(f"cannot write {path}", error) from error


def _container_of(document: dict[str, Any]) -> Container:
    if document.pop("version") != VERSION:
        raise ValueError("it has an unknown version")
    document["cgroups"] = tuple(str(path) for path in document["cgroups"])
    document["files"] = tuple(str(path) for path in document.get("files", ()))
    document["poststop"] = tuple(
        Hook(hook["path"], tuple(hook["argv"]), tuple(hook["environment"]), hook["timeout"])
        for hook in document["poststop"]
    )
    container = Container(**document)
    if not (isinstance(container.shim, int) and isinstance(container.shim_start_time, int)):
        raise ValueError("shim and shim_start_time are not numbers")
    return container
