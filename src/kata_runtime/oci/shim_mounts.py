"""What is seen by a process that enters a shim's mount namespace: the container's files, as far as the host has them.

Engines take the shim for the container's process: Podman enters its mount namespace for ``podman cp`` and
``podman top``, and would read and write the host's files there. setns(2) makes what was last mounted on the root the
caller's root directory, while the shim keeps the one that it has. So the container's files are mounted on the root, and
the shim still finds the host's.

File systems that only the guest has, such as tmpfs, are empty and read-only here: nothing is written in their place.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import ExitStack
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_KEPT = ("/run", "/etc", "/usr")


class View(NamedTuple):
    """A container's root directory on this host, and its mount points.

    ``points`` are paths in it, each with the path of the host that is mounted there, empty if only the guest has it.
    """

    root: str
    read_only: bool
    points: Sequence[tuple[str, str]]


def show_container_files(view: View, kept: Sequence[str]) -> None:
    """Enter a mount namespace that has ``view.root`` as its root directory, for others who enter it.

    This process still reaches the paths in ``kept``, its own program, and the host's sockets and configuration.

    :raise HostError: the kernel refused.
    """
    mounts.enter_own_mounts()
    with ExitStack() as stack:
        top = _copy(view.root, stack, read_only=view.read_only)
        trees = [(destination, _copy(source, stack) if source else None) for destination, source in view.points]
        mounts.detach_private([os.path.realpath(path) for path in (*kept, *sys.path, sys.executable, *_KEPT) if path])
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        stack.callback(os.close, root)
        mounts.attach_tree(top, root)
        for destination, tree in trees:
            _show(top, destination, tree)


def _copy(source: str, stack: ExitStack, *, read_only: bool = False) -> int:
    tree = mounts.copy_tree(source, read_only=read_only)
    stack.callback(os.close, tree)
    return tree


def _show(top: int, destination: str, tree: int | None) -> None:
    try:
        target = mounts.open_within(top, destination)
    except HostError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # it is below something that only the guest has
        raise
    try:
        if tree is not None:
            mounts.attach_tree(tree, target)
        elif stat.S_ISDIR(os.fstat(target).st_mode):
            mounts.attach_nothing(target)
    finally:
        os.close(target)
