"""Mounts in the guest that a container needs outside its own mount namespace.

Each file system of the host is a separate mount in the guest, which the kernel creates when a path is first followed
into it. If that happens in a container's mount namespace, it is unmounted with the last process, while virtiofsd may
still have that process's files open: the guest's kernel then reports "Busy inodes after unmount" (a BUG in fs/super.c,
Linux 6.1), and the process never ends. So these mounts are created here, before the container, and unmounted when its
files are closed.
"""

from __future__ import annotations

from kata_runtime.guest.crun import Crun, Mount, Setup
from kata_runtime.oci.guest_config import GUEST_SHARED, guest_bundle
from kata_runtime.vmm.filesystem import TAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.guest.crun import Runner
    from kata_runtime.oci.guest_config import GuestConfig

# include/uapi/linux/mount.h: MS_NOSUID, MS_NODEV, MS_NOEXEC
_MEMORY_FLAGS = 2 | 4 | 8
# Arguments: the shared directory and the bundle in it. virtiofsd serves requests in order: when it has answered
# statfs(2), which is never cached, it has served all earlier ones.
_UNMOUNT = """\
while read -r _ path _; do
    case "$path" in
    "$2"/*/*) ;;
    "$2"/*) stat -f "$1" > /dev/null && umount -l "$path" || exit ;;
    esac
done < /proc/mounts
"""


def setup_of(container_id: str, mounts: Sequence[str], config: GuestConfig, *, owns_pod: bool) -> Setup:
    """What the guest does before crun creates a container with these ``mounts`` below its shared directory.

    The pod's first container also brings the mount of the file system itself.
    """
    bundle = guest_bundle(container_id)
    shared = [Mount(TAG, GUEST_SHARED, "virtiofs")] if owns_pod else []
    shared += [
        Mount("shm", files.path, "tmpfs", _MEMORY_FLAGS, f"size={files.size},mode=1777")
        for files in config.memory_files
    ]
    hostname = [("kernel/hostname", config.hostname)] if config.hostname else []
    return Setup(
        shared,
        [f"{bundle}/{path}" for path in mounts],
        [*hostname, *config.sysctls.items()],
        # The guest caches names for a second (virtiofsd, cache=auto), and a container of this ID may just have been
        # deleted.
        forgets_names=not owns_pod,
    )


def forget_container(runner: Runner, container_id: str) -> None:
    """Kill a container, if it exists, in a guest that keeps running, and unmount what it used.

    :raise GuestError, DeadlineError: the guest failed.
    """
    Crun(runner).delete(container_id, force=True)
    runner.run(["sh", "-c", _UNMOUNT, "sh", GUEST_SHARED, guest_bundle(container_id)])
