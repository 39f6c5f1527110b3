"""The directory that a pod's virtiofsd serves: for each container, bind mounts of its root file system and volumes.

The host creates them in ``mounts``; virtiofsd serves ``shared``, to which they propagate (mount_namespaces(7)). Its own
directories are read-only, so that a guest cannot fill this host's memory.
"""

from __future__ import annotations

import os

from kata_runtime import fast_json
from kata_runtime.errors import HostError
from kata_runtime.sandbox import mounts
from kata_runtime.sandbox.paths import SandboxPaths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_runtime.oci.guest_config import Share

_BUNDLE_CONFIG = "config.json"


def make_shared_directory(sandbox: str) -> str:
    """Prepare the directory of a sandbox; returns the path that virtiofsd is to serve.

    :raise HostError: the kernel refused; ``mounts.remove_mounts`` removes what was mounted.
    """
    made, served = SandboxPaths(sandbox).mounts, SandboxPaths(sandbox).shared
    try:
        for path in (made, served):
            os.mkdir(path, 0o700)
    except OSError as error:
        raise HostError.of(f"cannot make {path}", error) from error
    mounts.bind(made, made, recursive=False)
    mounts.make_shared(made)
    mounts.bind(made, served, ("ro", "nosuid", "nodev"), recursive=False)
    return served


def is_shared_here(sandbox: str) -> bool:
    """Whether what is mounted for another container in this mount namespace reaches the sandbox's virtiofsd."""
    made = SandboxPaths(os.path.realpath(sandbox)).mounts
    return made in mounts.mounts_below(made)


def share(sandbox: str, container_id: str, shares: Sequence[Share], config: Mapping[str, object]) -> None:
    """Share a container's bundle with the guest: its root file system, its volumes, and ``config``.

    :raise HostError: the kernel refused; ``unshare`` removes what was created.
    """
    bundle = os.path.join(SandboxPaths(sandbox).mounts, container_id)
    try:
        os.mkdir(bundle, 0o755)
        for item in shares:
            target = os.path.join(bundle, item.name)
            if item.is_directory:
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            if item.is_overlay:
                mounts.mount_overlay(target, item.options)
            else:
                mounts.bind(item.source, target, item.options)
        written = os.open(
            os.path.join(bundle, _BUNDLE_CONFIG), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
        )
        with os.fdopen(written, "w", encoding="utf-8") as file:
            file.write(fast_json.dumps(config))
    except OSError as error:
        raise HostError.of(f"cannot share {error.filename or bundle} with the guest", error) from error


def shared_path(sandbox: str, container_id: str, name: str) -> str:
    """Where this host has mounted what a container's share ``name`` is."""
    return os.path.join(SandboxPaths(sandbox).mounts, container_id, name)


def shared_since(sandbox: str, container_id: str) -> float:
    """When a container's bundle was shared, as ``os.stat`` gives times. :raise OSError: it is not."""
    return os.stat(os.path.join(SandboxPaths(sandbox).mounts, container_id)).st_mtime


def shared_mounts(sandbox: str, container_id: str) -> list[str]:
    """The mount points in a container's shared directory, including nested volumes, as relative paths."""
    bundle = os.path.join(SandboxPaths(os.path.realpath(sandbox)).mounts, container_id)
    return [os.path.relpath(point, bundle) for point in mounts.mounts_below(bundle)]


def unshare(sandbox: str, container_id: str) -> None:
    """Undo ``share``, even if it was incomplete.

    :raise HostError: a mount could not be removed; nothing behind it was deleted.
    """
    bundle = os.path.join(SandboxPaths(sandbox).mounts, container_id)
    mounts.remove_mounts(bundle)
    try:
        entries = list(os.scandir(bundle))
        for entry in entries:
            # No recursive removal: if a mount had stayed, it would delete the container's data.
            if entry.is_dir(follow_symlinks=False):
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(bundle)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError.of(f"cannot remove {error.filename}", error) from error
