"""QEMU's command line, whole."""

from __future__ import annotations

import pytest

from kata_runtime.vmm.qemu_arguments import Port, VmConfig, qemu_arguments, root_port_address

_CONFIG = VmConfig(
    qemu="/usr/bin/qemu-system-x86_64",
    kernel="/image/vmlinuz",
    initrd="/image/initrd.img",
    kernel_parameters="console=ttyS0 quiet",
    machine_type="q35",
    accelerator="tcg",
    vcpus=2,
    memory_mib=512,
    root_ports=2,
    memory_fd=-1,
    monitor_fd=3,
    console_fd=4,
    ports=(Port("org.kata-runtime.control", 5), Port("org.kata-runtime.exec.0", 6)),
    name="6ec7a98",
)
_ARGUMENTS = """
/usr/bin/qemu-system-x86_64
-name guest=6ec7a98
-no-user-config -nodefaults -display none -no-reboot
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-machine q35,sata=off,smbus=off,vmport=off,usb=off
-accel tcg,thread=multi
-cpu max,erms=off
-smp 2
-m 512M
-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on
-kernel /image/vmlinuz
-initrd /image/initrd.img
-append console=ttyS0_quiet
-chardev socket,id=monitor,fd=3,server=on,wait=off
-mon chardev=monitor,mode=control
-chardev socket,id=console,fd=4
-device isa-serial,chardev=console
-device pcie-root-port,id=rp0,bus=pcie.0,addr=1.0,multifunction=on,chassis=1,io-reserve=0
-device pcie-root-port,id=rp1,bus=pcie.0,addr=1.1,multifunction=on,chassis=2,io-reserve=0
-device pcie-root-port,id=fs,bus=pcie.0,addr=6,chassis=33,io-reserve=0
-device virtio-serial-pci,id=serial,bus=pcie.0,addr=5,disable-legacy=on,max_ports=3,ioeventfd=off
-chardev socket,id=port1,fd=5,server=on,wait=off
-device virtserialport,bus=serial.0,nr=1,chardev=port1,name=org.kata-runtime.control
-chardev socket,id=port2,fd=6,server=on,wait=off
-device virtserialport,bus=serial.0,nr=2,chardev=port2,name=org.kata-runtime.exec.0
"""
_SERIAL = "virtio-serial-pci,id=serial,bus=pcie.0,addr=5,disable-legacy=on,max_ports=3"
_WHOLE = [word.replace("console=ttyS0_quiet", "console=ttyS0 quiet") for word in _ARGUMENTS.split()]


def _replaced(*pairs: tuple[str, list[str]]) -> list[str]:
    changes = dict(pairs)
    return [word for old in _WHOLE for word in changes.get(old, [old])]


def test_a_small_machine() -> None:
    """The whole argument vector of a machine with two root ports and two serial ports."""
    assert qemu_arguments(_CONFIG) == _WHOLE


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            _CONFIG._replace(accelerator="kvm"),
            _replaced(
                ("tcg,thread=multi", ["kvm"]),
                ("max,erms=off", ["host"]),
                (f"{_SERIAL},ioeventfd=off", [_SERIAL]),
            ),
        ),
        (
            _CONFIG._replace(memory_fd=9),
            _replaced(
                (
                    "q35,sata=off,smbus=off,vmport=off,usb=off",
                    ["q35,sata=off,smbus=off,vmport=off,usb=off,memory-backend=ram"],
                ),
                (
                    "512M",
                    ["512M", "-object", "memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/9,share=on"],
                ),
            ),
        ),
        (_CONFIG._replace(from_snapshot=True), [*_WHOLE, "-incoming", "defer"]),
        (_CONFIG._replace(uuid="u"), [*_WHOLE, "-uuid", "u"]),
        (
            _CONFIG._replace(debug=True),
            [*_WHOLE, "-msg", "timestamp=on,guest-name=on", "-d", "guest_errors,unimp"],
        ),
        (_CONFIG._replace(name="a,b=c"), _replaced(("guest=6ec7a98", ["guest=a,,b=c"]))),
    ],
    ids=["kvm", "shared memory", "snapshot", "uuid", "debug", "comma"],
)
def test_what_a_setting_changes(changed: VmConfig, expected: list[str]) -> None:
    """Each setting changes its own arguments and no others; a comma in a value is no separator."""
    assert qemu_arguments(changed) == expected


def test_thirty_two_root_ports() -> None:
    """Slots 1 to 4 hold eight functions each, in the order of pciAddr's numbers; the file system's is beyond them."""
    arguments = qemu_arguments(_CONFIG._replace(root_ports=32))
    ports = [word.split(",") for word in arguments if word.startswith("pcie-root-port")]
    assert [(port[1], port[3]) for port in ports] == [
        *((f"id=rp{number}", f"addr={1 + number // 8:x}.{number % 8:x}") for number in range(32)),
        ("id=fs", "addr=6"),
    ]
    assert [root_port_address(slot) for slot in (0, 7, 8, 31)] == ["01.0/00", "01.7/00", "02.0/00", "04.7/00"]
