"""Files that an engine writes between create and start, of which the guest still knows an earlier size."""

from __future__ import annotations

import os
import select
import time

from kata_runtime.errors import HostError
from kata_runtime.oci.shared_directory import shared_since
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import process_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.oci.container import Container

# What the guest knows of a file is valid for a second (virtiofsd, cache=auto), rounded up to its clock's next tick.
_VALID_SECONDS = 1.05


def await_changed_files(root: str, container: Container) -> None:
    """Wait, if a file was changed since the container's files were shared, until the guest asks for its size again.

    The guest looked at the files when crun mounted them, and its programs would read no further than they reached then.
    Podman writes /etc/hosts later, when a container has a user namespace. Their sources are looked at, since it runs
    create in a mount namespace of its own then. The wait takes a second at most, and ends with the container.
    """
    try:
        shared = shared_since(os.path.join(root, container.sandbox_id), container.container_id)
        created = os.stat(SandboxPaths(os.path.join(root, container.container_id)).container).st_mtime
    except OSError:
        return  # deleted meanwhile, which the caller will find
    left = min(created - time.time(), 0) + _VALID_SECONDS
    if left <= 0 or not any(_is_changed(path, shared) for path in container.files):
        return
    try:
        with process_descriptor(container.shim, container.shim_start_time) as shim:
            poller = select.poll()
            poller.register(shim, select.POLLIN)
            poller.poll(left * 1000)
    except HostError:
        return  # it has ended, which the caller will find


def _is_changed(path: str, since: float) -> bool:
    try:
        return os.stat(path).st_ctime > since
    except OSError:
        return False  # it was removed: what was mounted is no longer written to by its name
