"""What differs between processor architectures on the host's side: one row for each that was tried."""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple


class Architecture(NamedTuple):
    """QEMU's program, its Debian package, and the names that its command line uses.

    ``hotplug_globals`` make the guest remove a PCI device as soon as it is asked to. ``console_device`` is the serial
    port that the guest kernel's ``console=`` names (``guest.image.KERNEL_PARAMETERS``). ``emulated_cpu`` is the
    processor without KVM.
    """

    qemu: str
    qemu_package: str
    machine_type: str
    machine_options: tuple[str, ...]
    hotplug_globals: tuple[str, ...]
    console_device: str
    emulated_cpu: str


X86_64 = Architecture(
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    machine_type="q35",
    machine_options=("sata=off", "smbus=off", "vmport=off", "usb=off"),
    # By ACPI 0.1 s; the button of native PCIe hot-plug takes 5 s.
    hotplug_globals=("ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on",),
    console_device="isa-serial",
    # With ERMS the guest's kernel and C library copy and clear memory by REP MOVSB and REP STOSB, which TCG carries out
    # byte by byte (QEMU 7.2, do_gen_rep): clearing 24 KiB took ten times as long, and a boot a sixth longer.
    emulated_cpu="max,erms=off",
)
ARCHITECTURE = X86_64
