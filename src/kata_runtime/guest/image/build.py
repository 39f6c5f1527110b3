"""Builds an image from packages: kernel, initrd and their description."""

from __future__ import annotations

import hashlib
import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import HostError, InputError
from kata_runtime.guest.image import (
    DESCRIPTION_NAME,
    INITRD_NAME,
    KERNEL_NAME,
    Image,
    guest_python,
    install,
    modules,
    packages,
    userland,
)
from kata_runtime.guest.image.archive import Node, regular_file, write_archive
from kata_runtime.guest.image.kernel import unpack_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_COMPRESSION_LEVEL = 15
_MODULES_ROOT = "usr/lib/modules/"


class _Kernel(NamedTuple):
    image: bytes
    release: str
    nodes: dict[str, Node]


def build(
    destination: Path,
    *,
    include: Sequence[str],
    kernel: Path | None,
    modules: Path | None,
    progress: Callable[[str], None],
) -> Image:
    """See ``kata_runtime.guest.image.build_image``."""
    if (kernel is None) != (modules is None):
        raise InputError("--kernel and --modules must be given together")
    packages.check_names(include)
    try:
        install.prepare(destination)
        key = _key(include)
        progress("resolving packages")
        wanted = packages.resolve([*userland.BASE_PACKAGES, *guest_python.PYTHON_PACKAGES, *include])
        kernel_packages = [] if kernel else [_kernel_package()]
        cache = packages.cache_directory()
        packages.fetch([*wanted, *kernel_packages], cache, progress)
        progress("reading the kernel and its modules")
        chosen = (
            _own_kernel(kernel, modules)
            if kernel and modules
            else _distribution_kernel(cache / kernel_packages[0].file_name)
        )
        progress("reading the packages of the userland")
        nodes = _userland(wanted, include, cache) | chosen.nodes
        progress(f"compressing {len(nodes)} files")
        initrd = _compress(nodes)
        versions = {package.name: package.version for package in sorted([*wanted, *kernel_packages])}
        facts = {
            "key": key,
            "release": chosen.release,
            "include": sorted(include),
            "packages": versions,
        }
        image = _install(destination, chosen, initrd, facts)
    except OSError as exc:
        file = f": {exc.filename!r}" if exc.filename else ""
        raise HostError.of(f"cannot build the image {str(destination)!r}{file}", exc) from exc
    progress(
        f"image of Linux {image.release}: kernel {image.kernel_size >> 10} KiB, initrd {image.initrd_size >> 10} KiB"
    )
    return image


def is_current(directory: Path, include: Sequence[str]) -> bool:
    """See ``kata_runtime.guest.image.image_is_current``."""
    try:
        description = json.loads((directory / DESCRIPTION_NAME).read_bytes())
        sizes = {name: (directory / name).stat().st_size for name in (KERNEL_NAME, INITRD_NAME)}
        return bool(description["key"] == _key(include) and description["sizes"] == sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _key(include: Sequence[str]) -> str:
    """Return a hash of ``include`` and of all source files that determine the image's content (not ``install.py``)."""
    digest = hashlib.sha256(json.dumps(sorted(include)).encode())
    sources = {path.name: path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))}
    del sources[Path(install.__file__).name]
    for name, data in (sources | userland.agent_sources()).items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _kernel_package() -> packages.Package:
    for package in packages.resolve([packages.KERNEL_META_PACKAGE]):
        if packages.KERNEL_PACKAGE.fullmatch(package.name):
            return package
    raise HostError(
        f"{packages.KERNEL_META_PACKAGE} depends on no kernel",
        hint="name a kernel with --kernel and --modules",
    )


def _distribution_kernel(path: Path) -> _Kernel:
    # Debian 13 has the modules below /usr, Debian 12 still has them in /lib.
    content = {name.removeprefix("usr/"): node for name, node in packages.read_files(path)}
    image_path = next((name for name in content if name.startswith("boot/vmlinuz-")), None)
    if image_path is None:
        raise HostError(f"{path.name} holds no kernel")
    release = image_path.removeprefix("boot/vmlinuz-")
    root = f"lib/modules/{release}/"
    files = {
        name.removeprefix(root): partial(_content, node) for name, node in content.items() if name.startswith(root)
    }
    return _kernel(content[image_path].data, release, files)


def _content(node: Node) -> bytes:
    return node.data


def _own_kernel(kernel: Path, directory: Path) -> _Kernel:
    tree = directory.resolve()
    paths = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
    return _kernel(kernel.read_bytes(), tree.name, {name: path.read_bytes for name, path in paths.items()})


def _kernel(image: bytes, release: str, files: Mapping[str, Callable[[], bytes]]) -> _Kernel:
    builtin = files[modules.BUILTIN_LIST]().decode() if modules.BUILTIN_LIST in files else ""
    selected = modules.select_modules(files, builtin)
    return _Kernel(unpack_kernel(image), release, modules.module_nodes(release, selected, builtin))


def _userland(wanted: Sequence[packages.Package], include: Sequence[str], cache: Path) -> dict[str, Node]:
    version = guest_python.python_version(package.name for package in wanted)
    interpreter = guest_python.interpreter_packages(version)
    available: dict[str, Node] = {}
    base: dict[str, Node] = {}
    added: dict[str, Node] = {}
    for package in wanted:
        nodes = userland.package_nodes(packages.read_files(cache / package.file_name))
        available |= nodes
        if package.name in userland.BASE_PACKAGES or package.name in interpreter:
            base |= nodes
        elif package.name in include:
            added |= nodes
    python = guest_python.wanted_files(base, version)
    sources = {path: node for path, node in python.items() if path.endswith(".py")}
    runtime = {path: node for path, node in python.items() if path not in sources}
    agent = {f"{userland.AGENT_ROOT}/{path}": regular_file(data) for path, data in userland.agent_sources().items()}
    compiled = guest_python.compile_python(
        sources | agent, runtime | userland.library_nodes(runtime, available), version
    )
    programs = {path: base[path] for path in userland.BASE_PROGRAMS} | runtime | added
    result = userland.applet_nodes(base["usr/bin/busybox"]) | programs | compiled | userland.system_nodes()
    return result | userland.library_nodes(result, available)


def _compress(nodes: Mapping[str, Node]) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, nodes)
    argv = ["zstd", "--quiet", f"-{_COMPRESSION_LEVEL}", "--single-thread", "--no-progress", "--stdout"]
    return packages.run_program(argv, stdin=stream.getvalue())


def _install(destination: Path, kernel: _Kernel, initrd: bytes, facts: Mapping[str, object]) -> Image:
    contents = {KERNEL_NAME: kernel.image, INITRD_NAME: initrd}
    description = {
        **facts,
        "sizes": {name: len(data) for name, data in contents.items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    contents[DESCRIPTION_NAME] = (json.dumps(description, indent=1, sort_keys=True) + "\n").encode()
    install.install(destination, contents)
    return Image(
        destination,
        destination / KERNEL_NAME,
        destination / INITRD_NAME,
        kernel.release,
        len(kernel.image),
        len(initrd),
    )
