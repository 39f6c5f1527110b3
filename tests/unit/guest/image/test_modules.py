"""The selection of kernel modules, and the indexes for modprobe."""

from __future__ import annotations

import struct
from functools import partial

import pytest

from kata_runtime.errors import HostError, ProtocolError
from kata_runtime.guest.image import elf
from kata_runtime.guest.image.modules import module_nodes, select_modules
from kata_runtime.ipvs.model import SCHEDULERS

_NAMES = b"\0.modinfo\0.shstrtab\0"


def _module(*items: str) -> bytes:
    """Return the smallest ELF file with a .modinfo section."""
    information = b"".join(item.encode() + b"\0" for item in items)
    table = 64 + len(information) + len(_NAMES)
    header = struct.pack("<6s10x24xQ10xHHH", elf.MAGIC, table, 64, 3, 2)
    sections = bytes(64) + struct.pack("<II16xQQ24x", 1, 1, 64, len(information))
    sections += struct.pack("<II16xQQ24x", 10, 3, 64 + len(information), len(_NAMES))
    return header + information + _NAMES + sections


def _bytes(data: bytes) -> bytes:
    return data


def _kernel() -> dict[str, partial[bytes]]:
    modules = {
        "net/virtio_net.ko": _module("alias=virtio:d00000001v*", "depends=net-failover"),
        "net/net_failover.ko": _module("depends=failover"),
        "net/failover.ko": _module("depends="),
        "net/unwanted.ko": _module("depends="),
        "char/virtio_console.ko": _module("depends="),
    }
    return {path: partial(_bytes, data) for path, data in modules.items()}


def test_dependencies_come_along() -> None:
    """A wanted module brings what it needs, in the order that modprobe expects, and nothing else."""
    selected = select_modules(_kernel(), "kernel/virtio/virtio_pci.ko\n")
    assert [module.name for module in selected] == [
        "failover",
        "net_failover",
        "virtio_console",
        "virtio_net",
    ]
    nodes = module_nodes("6.1", selected, "kernel/virtio/virtio_pci.ko\n")
    assert nodes["usr/lib/modules/6.1/modules.dep"].data.decode() == (
        "net/failover.ko:\n"
        "net/net_failover.ko: net/failover.ko\n"
        "char/virtio_console.ko:\n"
        "net/virtio_net.ko: net/net_failover.ko net/failover.ko\n"
    )
    assert nodes["usr/lib/modules/6.1/modules.alias"].data == b"alias virtio:d00000001v* virtio_net\n"


def test_kernel_without_virtio_is_refused() -> None:
    """A kernel that neither has a required module nor has it built in is named as unfit."""
    with pytest.raises(HostError) as caught:
        select_modules(_kernel(), "")
    assert str(caught.value) == "the kernel has no module virtio_pci; the guest needs virtio PCI, network and console"


def test_missing_dependency_is_named() -> None:
    """A module whose dependency is nowhere ends the build."""
    kernel = _kernel()
    del kernel["net/failover.ko"]
    with pytest.raises(HostError) as caught:
        select_modules(kernel, "kernel/virtio_pci.ko")
    assert str(caught.value) == "the kernel modules are incomplete: failover is missing"


@pytest.mark.parametrize("length", range(0, 64, 7))
def test_cut_elf_is_refused(length: int) -> None:
    """An ELF file cut inside its header is an error of its own kind, nothing else."""
    with pytest.raises(ProtocolError):
        elf.module_information(_module("depends=")[:length])


def test_every_scheduler_has_its_module() -> None:
    """The image has whatever module of IPVS the kernel has: for each scheduler that the grammar of rules knows."""
    kernel = _kernel()
    names = {"ip_vs", *(f"ip_vs_{name}" for name in SCHEDULERS)}
    kernel |= {f"net/netfilter/ipvs/{name}.ko": partial(_bytes, _module("depends=")) for name in names}
    selected = {module.name for module in select_modules(kernel, "kernel/virtio/virtio_pci.ko\n")}
    assert selected == names | {"failover", "net_failover", "virtio_console", "virtio_net"}
