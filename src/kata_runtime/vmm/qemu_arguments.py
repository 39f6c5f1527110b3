"""The QEMU command line of a sandbox (qemu(1); q35 machine, docs/pcie.txt of QEMU)."""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple
from kata_runtime.vmm.architecture import ARCHITECTURE

# Slots 1 to 4 of the root bus, eight functions each.
ROOT_PORTS_MAX = 32
_FIRST_ROOT_PORT_SLOT = 1
_FUNCTIONS_PER_SLOT = 8
_SERIAL_SLOT = 5
_FILESYSTEM_SLOT = 6

# It has a root port of its own, besides those for NICs.
FILESYSTEM_BUS = "fs"

_SECCOMP = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Port(NamedTuple):
    """A virtio-serial port ``name``; ``fd`` is a listening Unix socket that QEMU inherits."""

    name: str
    fd: int


class VmConfig(NamedTuple):
    """A machine; ``monitor_fd`` is a listening Unix socket that QEMU inherits, ``console_fd`` a connected one."""

    qemu: str
    kernel: str
    initrd: str
    kernel_parameters: str
    machine_type: str
    accelerator: str
    vcpus: int
    memory_mib: int
    root_ports: int
    memory_fd: int
    monitor_fd: int
    console_fd: int
    ports: tuple[Port, ...]
    name: str
    uuid: str = ""
    debug: bool = False
    from_snapshot: bool = False


def root_port_bus(slot: int) -> str:
    """The bus behind root port ``slot`` (0 to 31)."""
    return f"rp{slot}"


def root_port_address(slot: int) -> str:
    """Where the device behind root port ``slot`` (0 to 31) sits.

    As ``<slot>.<function of the root port>/<slot behind it>``, hexadecimal.
    """
    port, function = divmod(slot, _FUNCTIONS_PER_SLOT)
    return f"{_FIRST_ROOT_PORT_SLOT + port:02x}.{function:x}/00"


def qemu_arguments(config: VmConfig) -> list[str]:
    """The argument vector that boots ``config``, program first."""
    machine = ",".join([_value(config.machine_type), *ARCHITECTURE.machine_options])
    memory = []
    if config.memory_fd >= 0:
        # A vhost-user back end maps the guest's memory by the descriptor it gets; a template is a copy of it.
        machine += ",memory-backend=ram"
        where = f"mem-path=/proc/self/fd/{config.memory_fd}"
        memory = ["-object", f"memory-backend-file,id=ram,size={config.memory_mib}M,{where},share=on"]
    # fmt: off
    arguments = [
        config.qemu,
        "-name", f"guest={_value(config.name)}",
        "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-sandbox", _SECCOMP,
        "-machine", machine,
        "-accel", _accelerator(config.accelerator),
        "-cpu", cpu_model(config.accelerator),
        "-smp", str(config.vcpus),
        "-m", f"{config.memory_mib}M",
        *memory,
        *(word for setting in ARCHITECTURE.hotplug_globals for word in ("-global", setting)),
        "-kernel", config.kernel,
        "-initrd", config.initrd,
        "-append", config.kernel_parameters,
        *_socket("monitor", config.monitor_fd),
        "-mon", "chardev=monitor,mode=control",
        # Already connected to the process that keeps the console's output.
        "-chardev", f"socket,id=console,fd={config.console_fd}",
        "-device", f"{ARCHITECTURE.console_device},chardev=console",
        *_root_ports(config.root_ports),
        "-device", (f"pcie-root-port,id={FILESYSTEM_BUS},bus=pcie.0,addr={_FILESYSTEM_SLOT:x}"
                    f",chassis={ROOT_PORTS_MAX + 1},io-reserve=0"),
        *_serial_ports(config.ports, config.accelerator),
    ]
    # fmt: on
    if config.from_snapshot:
        arguments += ["-incoming", "defer"]
    if config.uuid:
        arguments += ["-uuid", config.uuid]
    if config.debug:
        arguments += ["-msg", "timestamp=on,guest-name=on", "-d", "guest_errors,unimp"]
    return arguments


def cpu_model(accelerator: str) -> str:
    """The processor that the guest sees."""
    return "host" if accelerator == "kvm" else ARCHITECTURE.emulated_cpu


def _accelerator(name: str) -> str:
    return "tcg,thread=multi" if name == "tcg" else _value(name)


def _root_ports(count: int) -> list[str]:
    arguments = []
    for index in range(count):
        slot, function = divmod(index, _FUNCTIONS_PER_SLOT)
        address = f"{_FIRST_ROOT_PORT_SLOT + slot:x}.{function:x}"
        # The 64 KiB of I/O ports are enough for 15 bridges of 4 KiB each; virtio 1.0 needs none.
        arguments += [
            "-device",
            (
                f"pcie-root-port,id={root_port_bus(index)},bus=pcie.0,addr={address},multifunction=on"
                f",chassis={index + 1},io-reserve=0"
            ),
        ]
    return arguments


def _serial_ports(ports: tuple[Port, ...], accelerator: str) -> list[str]:
    device = (
        f"virtio-serial-pci,id=serial,bus=pcie.0,addr={_SERIAL_SLOT:x},disable-legacy=on,max_ports={len(ports) + 1}"
    )
    if accelerator == "tcg":
        # With KVM an eventfd spares the guest an exit. Without, it only moves the work to QEMU's main thread, which
        # competes with the guest's processor for QEMU's lock: lists of virtual servers take a seventh longer.
        device += ",ioeventfd=off"
    arguments = ["-device", device]
    # Port 0 is reserved for a console (docs of virtio-serial in qemu(1)).
    for number, port in enumerate(ports, 1):
        arguments += _socket(f"port{number}", port.fd)
        arguments += [
            "-device",
            f"virtserialport,bus=serial.0,nr={number},chardev=port{number},name={_value(port.name)}",
        ]
    return arguments


def _socket(identity: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={identity},fd={fd},server=on,wait=off"]


def _value(text: str) -> str:
    """``text`` as a value in a list of options, where QEMU reads two commas as one."""
    return text.replace(",", ",,")
