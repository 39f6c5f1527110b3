"""Selects the guest's kernel modules, with their dependencies and aliases."""

from __future__ import annotations

import gzip
import lzma
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import HostError
from kata_runtime.guest.image import elf
from kata_runtime.guest.image.archive import Node, regular_file
from kata_runtime.guest.image.packages import run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_REQUIRED = ("virtio_console", "virtio_net", "virtio_pci")
_OPTIONAL = (
    "af_packet", "crc32c_generic", "dummy", "fou", "fou6", "fuse", "ip6_gre", "ip6_tunnel", "ip_gre", "ipip", "ipv6",
    "nf_conntrack", "nf_conntrack_netlink", "nfnetlink", "overlay", "sit", "virtio_rng", "virtiofs",
)  # fmt: skip
# IPVS itself, and every scheduler, helper and persistence engine that the kernel has for it.
_IPVS = "ip_vs"
BUILTIN_LIST = "modules.builtin"


class Module(NamedTuple):
    """One module; ``path`` is relative to lib/modules/RELEASE and without a compression suffix."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def module_name(path: str) -> str:
    """Return the kernel's name of the module in the file ``path``."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def select_modules(files: Mapping[str, Callable[[], bytes]], builtin: str) -> list[Module]:
    """Return the wanted modules and all that they depend on.

    ``files`` maps paths below lib/modules/RELEASE to their readers; ``builtin`` is the text of modules.builtin.
    Raises HostError when the kernel lacks what the guest cannot run without.
    """
    paths = {module_name(path): path for path in sorted(files) if ".ko" in PurePosixPath(path).name}
    present = {module_name(line) for line in builtin.split()}
    selected: dict[str, Module] = {}
    queue = [name for name in paths if name in (*_REQUIRED, *_OPTIONAL) or name.startswith(_IPVS)]
    for name in _REQUIRED:
        if name not in paths and name not in present:
            raise HostError(f"the kernel has no module {name}", hint="the guest needs virtio PCI, network and console")
    while queue:
        name = queue.pop()
        if name in selected or (name in present and name not in paths):
            continue
        if name not in paths:
            raise HostError(f"the kernel modules are incomplete: {name} is missing")
        selected[name] = _read(paths[name], files[paths[name]]())
        queue.extend(selected[name].depends)
    return [selected[name] for name in sorted(selected)]


def module_nodes(release: str, modules: Iterable[Module], builtin: str) -> dict[str, Node]:
    """Return the files of lib/modules/RELEASE, with the indexes that modprobe reads (modules.dep(5))."""
    by_name = {module.name: module for module in modules}
    root = f"usr/lib/modules/{release}"
    nodes = {f"{root}/{module.path}": regular_file(module.data) for module in by_name.values()}
    lines = [
        f"{module.path}: {' '.join(by_name[name].path for name in _closure(module, by_name))}".rstrip()
        for module in by_name.values()
    ]
    aliases = [f"alias {alias} {module.name}" for module in by_name.values() for alias in module.aliases]
    nodes[f"{root}/modules.dep"] = _index(lines)
    nodes[f"{root}/modules.alias"] = _index(aliases)
    nodes[f"{root}/{BUILTIN_LIST}"] = _index(sorted(builtin.split()))
    return nodes


def _index(lines: Iterable[str]) -> Node:
    return regular_file("".join(f"{line}\n" for line in lines).encode())


def _closure(module: Module, by_name: Mapping[str, Module]) -> list[str]:
    """Return the names of all modules that ``module`` depends on, each before its own dependencies."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in by_name and name not in order:
            for needed in by_name[name].depends:
                visit(needed)
            order.append(name)

    for needed in module.depends:
        visit(needed)
    return order[::-1]


def _read(path: str, data: bytes) -> Module:
    stem, _, suffix = path.partition(".ko")
    if suffix == ".xz":
        data = lzma.decompress(data)
    elif suffix == ".gz":
        data = gzip.decompress(data)
    elif suffix == ".zst":
        data = run_program(["zstd", "--decompress", "--stdout"], stdin=data)
    information = elf.module_information(data)
    depends = [name.replace("-", "_") for line in information.get("depends", []) for name in line.split(",") if name]
    return Module(module_name(path), f"{stem}.ko", data, tuple(depends), tuple(information.get("alias", [])))
