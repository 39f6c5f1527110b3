"""The guest's kernel and initrd: their paths, the kernel parameters, and the functions that build them.

Quick to import: the functions that build import the builder when they are called.
"""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DEFAULT_DESTINATION = "/var/lib/kata-runtime/image"

# Measured with QEMU's TCG on two cores, q35 and 32 root ports: 4 s to the agent, 2 s less than with "quiet" alone.
KERNEL_PARAMETERS = (
    "console=ttyS0", "quiet", "panic=1", "reboot=k",
    "oops=panic",  # after an oops the end of a process might never be reported
    "pcie_ports=compat",  # ACPI does the hot-plug; the services of 32 PCIe ports would take 0.6 s to start
    "tsc=reliable", "no_timer_check",  # no calibration against timers that QEMU emulates
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",  # a NIC is removed in milliseconds instead of tens of milliseconds
    "audit=0", "lsm=", "cryptomgr.notests", "i8042.noaux", "i8042.nokbd", "8250.nr_uarts=1",
)  # fmt: skip

# The guest's init runs it at the same time as the agent; it has ended before a template is made of the guest.
MODULES_SCRIPT = "/etc/init.d/modules"

KERNEL_NAME = "vmlinuz"
INITRD_NAME = "initrd.img"
DESCRIPTION_NAME = "image.json"


class Image(NamedTuple):
    """One built image; sizes are in bytes."""

    directory: Path
    kernel: Path
    initrd: Path
    release: str
    kernel_size: int
    initrd_size: int


def build_image(
    destination: Path,
    *,
    include: Sequence[str] = (),
    kernel: Path | None = None,
    modules: Path | None = None,
    progress: Callable[[str], None],
) -> Image:
    """Build an image from Debian packages and put it at ``destination``.

    ``include`` names packages to add, each with the libraries that it is linked to; ``kernel`` and ``modules``
    (a ``lib/modules/RELEASE`` directory) are used instead of the distribution's. An existing image is replaced
    atomically. Raises HostError, InputError.
    """
    from kata_runtime.guest.image.build import build

    return build(destination, include=include, kernel=kernel, modules=modules, progress=progress)


def image_is_current(directory: Path, include: Sequence[str] = ()) -> bool:
    """Whether ``directory`` has an image that this version's ``build_image`` made with the same ``include``."""
    from kata_runtime.guest.image.build import is_current

    return is_current(directory, include)
