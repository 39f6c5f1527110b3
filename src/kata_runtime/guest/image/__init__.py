"""The guest's kernel and initrd: their paths, their kernel parameters, and how to build them.

Light to import: the builder itself is loaded by the functions that need it.
"""

from __future__ import annotations

from pathlib import Path

from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_DESTINATION = Path("/var/lib/kata-runtime/image")
TEST_DESTINATION = Path("/var/lib/kata-runtime/image-test")
TEST_PACKAGES = ("conntrack", "ethtool", "iproute2", "iputils-ping", "ipvsadm", "procps")

# Measured with QEMU's TCG on two cores, q35 and 32 root ports: 4 s to the agent, 2 s less than with "quiet" alone.
KERNEL_PARAMETERS = (
    "console=ttyS0", "quiet", "panic=1", "reboot=k",
    "oops=panic",  # a process that the kernel could not end would never be reported as ended
    "pcie_ports=compat",  # hot-plug is ACPI's; the ports' own services cost 0.6 s for 32 of them
    "tsc=reliable", "no_timer_check",  # calibration against timers that QEMU emulates
    "random.trust_cpu=on",
    "rcupdate.rcu_expedited=1",  # a NIC goes in milliseconds, not in tens of them
    "audit=0", "lsm=", "cryptomgr.notests", "i8042.noaux", "i8042.nokbd", "8250.nr_uarts=1",
)  # fmt: skip

# Run by the guest's init beside the agent, and before a template is taken of the guest.
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
    """Build an image from Debian packages and put it at ``destination`` in one step.

    ``include`` names packages to add, each with the libraries that it is linked to; ``kernel`` and ``modules``
    (a ``lib/modules/RELEASE`` directory) replace the distribution's. An image that is there already is replaced
    only by a complete one. Raises HostError, InputError.
    """
    from kata_runtime.guest.image.build import build

    return build(destination, include=include, kernel=kernel, modules=modules, progress=progress)


def image_is_current(directory: Path, include: Sequence[str] = ()) -> bool:
    """True when ``directory`` holds what ``build_image`` of this version would put there for ``include``."""
    from kata_runtime.guest.image.build import is_current

    return is_current(directory, include)
