"""The shared file system of a machine: a vhost-user-fs device whose requests virtiofsd serves."""

from __future__ import annotations

from kata_runtime.errors import KataError
from kata_runtime.fast_contextlib import ExitStack
from kata_runtime.vmm.qemu_arguments import FILESYSTEM_BUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.vmm.monitor import Monitor

TAG = "kata-runtime"  # what the guest mounts (struct virtio_fs_config)
_IDENTITY = "filesystem"
# vhost-user-fs-pci has no limit of its own; 1024 requests are virtiofsd's (fuse_virtio.c of QEMU 7.2).
_QUEUE_SIZE = 1024
_UNDO_SECONDS = 3.0


def plug_filesystem(monitor: Monitor, connection: int) -> None:
    """Plug the file system; QEMU gets a duplicate of ``connection``, a connected socket to virtiofsd.

    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer; then it is as it was.
    """
    address = {"type": "fd", "data": {"str": _IDENTITY}}
    with ExitStack() as undo:
        undo.callback(_attempt, monitor, "closefd", {"fdname": _IDENTITY})
        monitor.send_fd(connection, _IDENTITY)
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        monitor.execute("chardev-add", {"id": _IDENTITY, "backend": backend})
        # QEMU took the descriptor with the command.
        undo.pop_all()
        undo.callback(_attempt, monitor, "chardev-remove", {"id": _IDENTITY})
        device = {
            "driver": "vhost-user-fs-pci",
            "id": _IDENTITY,
            "chardev": _IDENTITY,
            "tag": TAG,
            "queue-size": _QUEUE_SIZE,
            "bus": FILESYSTEM_BUS,
        }
        monitor.execute("device_add", device)
        undo.pop_all()


def _attempt(monitor: Monitor, command: str, arguments: dict[str, object]) -> None:
    """Undo a step; its own failure is ignored, since the original error is the one to report."""
    try:
        monitor.execute(command, arguments, _UNDO_SECONDS)
    except KataError:
        return
