"""The guest's root file system without kernel modules and Python's library: busybox, crun, the agent, libraries."""

from __future__ import annotations

import re
import stat
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kata_runtime.errors import HostError
from kata_runtime.guest.image import MODULES_SCRIPT, elf
from kata_runtime.guest.image.archive import Node, console_device, directory, regular_file, symbolic_link
from kata_runtime.guest.image.packages import run_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BASE_PACKAGES = ("busybox-static", "crun")
BASE_PROGRAMS = ("usr/bin/busybox", "usr/bin/crun")
AGENT_ROOT = "usr/lib/kata-runtime"
_LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64")
_LOADER = "ld-linux-x86-64.so.2"
_PROGRAM_DIRECTORIES = ("usr/bin/", "usr/sbin/")
_USR_MERGE = re.compile(r"(bin|sbin|lib|lib64)(/|$)")
_DOCUMENTATION = re.compile(
    r"usr/(include|share/(applications|apport|bash-completion|bug|doc|doc-base|icons|info|initramfs-tools|lintian|locale"
    r"|man|menu|metainfo|pixmaps|zsh))(/|$)|etc/(init\.d|default|cron[^/]*|logrotate\.d)(/|$)|usr/lib/systemd(/|$)"
)
# pivot_root(2), with which crun enters a container's root, does not work on the rootfs that the kernel unpacks the
# initrd into, since that has no parent mount. A bind mount of it has one; nothing is copied.
_INIT = """\
#!/bin/sh
mount --bind / /mnt
cd /mnt
mount --move . /
exec chroot . /usr/sbin/init
"""
_INITTAB = f"""\
::sysinit:/etc/init.d/start
::respawn:/usr/sbin/kata-agent
::once:{MODULES_SCRIPT}
::shutdown:/usr/bin/sync
"""
# Runs before the agent, so it does only what the agent needs.
_START = """\
#!/bin/sh
mount -t devtmpfs -o mode=0755,nosuid dev /dev
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
modprobe -a virtio_pci virtio_console
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=0620,ptmxmode=0666,nosuid,noexec devpts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
mount -t tmpfs -o mode=0755,nosuid,nodev run /run
mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp
ip link set lo up
echo kata >/proc/sys/kernel/hostname
"""
_MODULES = """\
#!/bin/sh
# Without a firewall rule that needs it, connection tracking sees packets only with this parameter.
modprobe nf_conntrack enable_hooks=1
exec modprobe -a virtio_net ip_vs nf_conntrack_netlink virtiofs
"""
# By default the C library maps and unmaps each buffer of more than 128 KiB, and gives the end of its heap back
# (mallopt(3)): without KVM the page faults of a buffer cost several times what filling it costs.
_AGENT = """\
#!/bin/sh
export MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=4194304
exec /usr/bin/python3 -S -E -s -c "import sys; sys.path.insert(0, '/usr/lib/kata-runtime')
from kata_runtime.guest.agent.main import main
main()" >/dev/console 2>&1
"""


def agent_sources() -> dict[str, bytes]:
    """Return ``{path below AGENT_ROOT: content}`` of the agent, taken from this package."""
    package = Path(__file__).resolve().parents[2]
    paths = [package / "__init__.py"]
    paths += [package / "guest" / name for name in ("__init__.py", "netlink_block.py", "wire.py")]
    paths += sorted((package / "guest/agent").glob("*.py"))
    return {f"kata_runtime/{path.relative_to(package)}": path.read_bytes() for path in paths}


def system_nodes() -> dict[str, Node]:
    """Return the files that are the same in every image: directories, links, init and its scripts, files in /etc."""
    nodes = {name: directory() for name in ("dev", "etc", "mnt", "proc", "root", "run", "sys", "usr", "var")}
    nodes |= {name: symbolic_link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")}
    nodes |= {"tmp": directory(0o1777), "dev/console": console_device(), "var/run": symbolic_link("../run")}
    nodes |= {f"usr/lib64/{_LOADER}": symbolic_link(f"/usr/lib/x86_64-linux-gnu/{_LOADER}")}
    scripts = {
        "init": _INIT,
        "etc/init.d/start": _START,
        MODULES_SCRIPT.removeprefix("/"): _MODULES,
        "usr/sbin/kata-agent": _AGENT,
    }
    nodes |= {name: regular_file(text.encode(), 0o755) for name, text in scripts.items()}
    texts = {
        "etc/inittab": _INITTAB,
        "etc/hostname": "kata\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    return nodes | {name: regular_file(text.encode()) for name, text in texts.items()}


def package_nodes(files: Iterable[tuple[str, Node]]) -> dict[str, Node]:
    """Return the files of a package with merged-/usr paths, without documentation and directories."""
    nodes = {}
    for path, node in files:
        merged = f"usr/{path}" if _USR_MERGE.match(path) else path
        if not (stat.S_ISDIR(node.mode) or _DOCUMENTATION.match(merged)):
            nodes[merged] = node
    return nodes


def applet_nodes(busybox: Node) -> dict[str, Node]:
    """Return a link for each applet that busybox lists."""
    with tempfile.TemporaryDirectory(prefix="kata-image-") as scratch:
        program = Path(scratch, "busybox")
        program.write_bytes(busybox.data)
        program.chmod(0o755)
        names = run_program([str(program), "--list-full"]).decode().split()
    paths = [f"usr/{name}" if _USR_MERGE.match(name) else name for name in names]
    return {path: symbolic_link("/usr/bin/busybox") for path in paths if path.startswith("usr/")}


def library_nodes(nodes: Mapping[str, Node], available: Mapping[str, Node]) -> dict[str, Node]:
    """Return the shared libraries of ``available`` that ``nodes`` need, directly or through other libraries.

    Raises HostError if a program's library is missing. A plug-in's may be missing: its package only suggests it then.
    """
    found: dict[str, Node] = {}
    queue = list(nodes.items())
    while queue:
        user, node = queue.pop()
        for soname in elf.needed_libraries(node.data) if node.data.startswith(elf.MAGIC) else ():
            paths = _library_paths(soname, nodes, available)
            if paths is None and user.startswith(_PROGRAM_DIRECTORIES):
                raise HostError(f"no package has the library {soname} that {user} needs")
            fresh = {path: available[path] for path in paths or () if path not in found}
            found |= fresh
            queue.extend(fresh.items())
    return found


def _library_paths(soname: str, nodes: Mapping[str, Node], available: Mapping[str, Node]) -> list[str] | None:
    """Return the path of a library in ``available``, and its target if it is a link; empty if ``nodes`` has it."""
    for where in _LIBRARY_DIRECTORIES:
        path = f"{where}/{soname}"
        if path in nodes:
            return []
        if path in available:
            behind = str(PurePosixPath(path).parent / available[path].data.decode(errors="replace"))
            is_link = stat.S_ISLNK(available[path].mode)
            return [path, behind] if is_link and behind in available else [path]
    return None
