"""What the guest sets up before crun creates a container."""

from __future__ import annotations

from kata_runtime.guest.crun import Mount, Setup
from kata_runtime.oci.guest_config import GuestConfig, MemoryFiles
from kata_runtime.oci.guest_mounts import setup_of

_CONFIG = GuestConfig({}, (), (), (MemoryFiles("/run/m", 4096),), "box", {"net/a": "1"})


def test_first_container() -> None:
    """The pod's first container brings the file system, its memory, host name and sysctls, and paths to be mounted."""
    assert setup_of("c", ["rootfs", "mount1"], _CONFIG, owns_pod=True) == Setup(
        [
            Mount("kata-runtime", "/run/kata-runtime/shared", "virtiofs"),
            Mount("shm", "/run/m", "tmpfs", 14, "size=4096,mode=1777"),
        ],
        ["/run/kata-runtime/shared/c/rootfs", "/run/kata-runtime/shared/c/mount1"],
        [("kernel/hostname", "box"), ("net/a", "1")],
        forgets_names=False,
    )


def test_next_container() -> None:
    """A later one finds the file system mounted, and the guest forgets the names that it has cached."""
    member = _CONFIG._replace(memory_files=(), hostname="", sysctls={})
    assert setup_of("d", [], member, owns_pod=False) == Setup(forgets_names=True)._replace(
        mounts=[], paths=[], sysctls=[]
    )
