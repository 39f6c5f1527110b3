"""Mounts in the guest that a container needs outside its own mount namespace.

Each file system of the host is a separate mount in the guest, which the kernel creates when a path is first followed
into it. If that happens in a container's mount namespace, it is unmounted with the last process, while virtiofsd may
still have that process's files open: the guest's kernel then reports "Busy inodes after unmount" (a BUG in fs/super.c,
Linux 6.1), and the process never ends. So these mounts are created here, before the container, and unmounted when its
files are closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.errors import GuestError
from kata_runtime.guest.crun import Crun
from kata_runtime.oci.guest_config import GUEST_SHARED, guest_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.guest.crun import Runner
    from kata_runtime.oci.guest_config import MemoryFiles

# The guest caches names for a second (virtiofsd, cache=auto), and a container of this ID may just have been deleted:
# "2" drops that cache (Documentation/admin-guide/sysctl/vm.rst, drop_caches).
# Arguments: pairs of a tmpfs, which containers of the pod share, and its size. Input: paths to mount.
_PREPARE = """\
echo 2 > /proc/sys/vm/drop_caches
while [ $# -gt 0 ]; do
    grep -q " $1 " /proc/mounts ||
        { mkdir -p "$1" && mount -t tmpfs -o "size=$2,mode=1777,nosuid,nodev,noexec" shm "$1"; } || exit
    shift 2
done
while IFS= read -r path; do
    [ -d "$path/." ] || :
done
"""
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


def prepare(runner: Runner, container_id: str, mounts: Sequence[str], memory_files: Sequence[MemoryFiles]) -> None:
    """Mount the host's file systems in a container's shared directory, and the tmpfs that it shares with its pod.

    :raise GuestError: the guest cannot.
    """
    bundle = guest_bundle(container_id)
    argv = ["sh", "-c", _PREPARE, "sh"]
    for files in memory_files:
        argv += [files.path, str(files.size)]
    done = runner.run(argv, "".join(f"{bundle}/{path}\n" for path in mounts).encode(errors="surrogateescape"))
    if done.exit_status:
        raise GuestError(f"the guest cannot mount memory: {done.stderr.decode(errors='replace')[:200]}")


def forget_container(runner: Runner, container_id: str) -> None:
    """Kill a container, if it exists, in a guest that keeps running, and unmount what it used.

    :raise GuestError, DeadlineError: the guest failed.
    """
    Crun(runner).delete(container_id, force=True)
    runner.run(["sh", "-c", _UNMOUNT, "sh", GUEST_SHARED, guest_bundle(container_id)])
