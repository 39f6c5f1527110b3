"""nginx of Debian in Podman's containers, balanced by a container whose virtual server kata-ipvs made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.engines.conftest import NOTHING, Host

from kata_runtime.guest.image import packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.engines.conftest import Podman

_FILE_BYTES = 24 << 20
_DOWNLOADS = 4
_SERVING_SECONDS = 30.0
_CONFIGURATION = """
daemon off;
user root;
error_log stderr;
events {}
http {
    access_log /dev/stdout;
    sendfile on;
    server { listen 80; root /files; }
}
"""


@pytest.fixture(scope="module")
def image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of nginx with what it depends on, unpacked from Debian's packages."""
    root = tmp_path_factory.mktemp("nginx")
    wanted = packages.resolve(["nginx-light"])
    cache = packages.cache_directory()
    packages.fetch(wanted, cache, lambda _: None)
    for package in wanted:
        subprocess.run(["dpkg-deb", "--extract", str(cache / package.file_name), str(root)], check=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nginx/nginx.conf").write_text(_CONFIGURATION)
    pack = ["tar", "--create", "--exclude", "./usr/share/*", "--directory", str(root), "."]
    archive = subprocess.run(pack, capture_output=True, check=True).stdout
    command = 'CMD ["/usr/sbin/nginx"]'
    podman.run("import", "--quiet", "--change", command, "-", "localhost/nginx", stdin=archive)
    shutil.rmtree(root)
    return "localhost/nginx"


@pytest.fixture(scope="module")
def networks(podman: Podman, unique: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """A bridge network 10.95.1.0/24, and 10.95.2.0/24, which has no way out but through a container of both."""
    front, back = names = unique("front"), unique("back")
    try:
        podman.run("network", "create", "--subnet", "10.95.1.0/24", front)
        podman.run("network", "create", "--subnet", "10.95.2.0/24", "--internal", "--disable-dns", back)
        yield names
    finally:
        podman.attempt("network", "rm", "--force", *names)
        for name in names:
            # The addresses that CNI's host-local plug-in gave away, which it keeps outside of Podman's directories.
            shutil.rmtree(Path("/var/lib/cni/networks", name), ignore_errors=True)


def _address(podman: Podman, name: str, network: str) -> str:
    (found,) = json.loads(podman.run("inspect", name))
    return str(found["NetworkSettings"]["Networks"][network]["IPAddress"])


def _await_server(podman: Podman, client: str, address: str) -> None:
    """Wait until a container's server answers another container."""
    end = time.monotonic() + _SERVING_SECONDS
    while podman.attempt("exec", client, "wget", "-q", "--spider", f"http://{address}/file").returncode:
        assert time.monotonic() < end, address


def test_download_from_balanced_servers(
    podman: Podman, image: str, networks: tuple[str, str], tmp_path: Path, rootfs: Path
) -> None:
    """What comes through the bridge, the virtual server and two nginx is whole, and both have served."""
    front, back = networks
    data = os.urandom(_FILE_BYTES)
    (tmp_path / "file").write_bytes(data)
    runtime = podman.runtime
    names = ("balancer", "nginx1", "nginx2")
    with podman.removed(*names):
        options = ["--network", front, "--network", back, "--sysctl", "net.ipv4.ip_forward=1"]
        podman.run("run", "--detach", "--name", names[0], *options, "localhost/tiny", "sleep", "1000")
        gateway = _address(podman, names[0], back)
        address = _address(podman, names[0], front)
        service = f"-t {address}:80"
        rules = [f"-A {service} -s rr"]
        for name in names[1:]:
            podman.run("run", "--detach", "--name", name, "--network", back, "--volume", f"{tmp_path}:/files:ro", image)
            server = _address(podman, name, back)
            _await_server(podman, names[0], server)
            rules.append(f"-a {service} -r {server}:80 -m")
            route = {"dest": "default", "gateway": gateway, "device": "eth0"}
            added = runtime.cli("kata-network", "add-route", podman.id_of(name), "-", stdin=json.dumps(route))
            assert (added.returncode, added.stderr) == (0, "")
        balancer = podman.id_of(names[0])
        restored = runtime.cli("kata-ipvs", "ipvsadm", "--restore", "-", balancer, stdin="\n".join(rules))
        assert (restored.returncode, restored.stderr) == (0, "")
        fetch = f"{rootfs}/bin/busybox wget -q -O - http://{address}/file | md5sum"
        for _ in range(_DOWNLOADS):
            assert podman.namespace.run("sh", "-c", fetch).stdout == f"{hashlib.md5(data).hexdigest()}  -\n"
        # Connections are known at once; the kernel updates its counters (--stats) every two seconds.
        shown = runtime.cli("kata-ipvs", "ipvsadm", "--parameters", "-L", balancer).stdout
        servers = [line.split() for line in shown.splitlines() if line.startswith("  -> 10.95.2.")]
        assert [int(active) + int(inactive) for *_, active, inactive in servers] == [_DOWNLOADS // 2] * 2, shown
    podman.run("rmi", image)
    assert Host(runtime.root).left() == NOTHING
