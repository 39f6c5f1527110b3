"""Podman's networks and pods with containers in VMs, and kata-network and kata-ipvs on them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.engines.conftest import NOTHING, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.engines.conftest import Podman

_PORT = 8080
_SECONDS = 30.0
_PAGE_BYTES = 8 << 20
_SERVE = f"yes kata | head -c {_PAGE_BYTES} > /www/page; echo serving; exec httpd -f -p 80 -h /www"
_RULES = "TCP  10.9.9.9:80 rr\n  -> 127.0.0.1:80                 Masq    1      0          0         \n"


@pytest.fixture(scope="module")
def networks(podman: Podman, unique: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Two bridge networks, 10.91.1.0/24 and 10.91.2.0/24."""
    names = (unique("net"), unique("net"))
    try:
        for number, name in enumerate(names, 1):
            podman.run("network", "create", "--subnet", f"10.91.{number}.0/24", name)
        yield names
    finally:
        podman.attempt("network", "rm", "--force", *names)
        for name in names:
            # The addresses that CNI's host-local plug-in gave away, which it keeps outside of Podman's directories.
            shutil.rmtree(Path("/var/lib/cni/networks", name), ignore_errors=True)


@pytest.fixture(scope="module")
def web(podman: Podman, networks: tuple[str, str]) -> Iterator[str]:
    """A web server on the first network, with a published port."""
    with podman.removed("web"):
        options = ["--network", networks[0], "--publish", f"{_PORT}:80"]
        podman.run("run", "--detach", "--name", "web", *options, "localhost/tiny", "sh", "-c", _SERVE)
        assert podman.line_of("web") == "serving\n"
        yield "web"
    assert Host(podman.runtime.root).left() == NOTHING


def _interfaces(podman: Podman, name: str) -> list[str]:
    shown = podman.run("exec", name, "ifconfig", "-a")
    return sorted(line.split()[0] for line in shown.splitlines() if line[:1].strip())


def _addresses(podman: Podman, name: str) -> list[str]:
    shown = podman.run("exec", name, "ifconfig")
    return sorted(word[5:] for word in shown.split() if word.startswith("addr:10."))


def _await(podman: Podman, name: str, count: int) -> list[str]:
    """The container's addresses once there are this many; the shim follows shortly after."""
    end = time.monotonic() + _SECONDS
    while len(found := _addresses(podman, name)) != count:
        assert time.monotonic() < end, found
    return found


def test_published_port(podman: Podman, web: str, rootfs: Path) -> None:
    """A download through Podman's bridge, by the published port and by the container's own address, is whole."""
    (address,) = _addresses(podman, web)
    expected = hashlib.md5((b"kata\n" * (_PAGE_BYTES // 5 + 1))[:_PAGE_BYTES]).hexdigest()
    for host in (f"127.0.0.1:{_PORT}", address):
        done = podman.namespace.run("sh", "-c", f"{rootfs}/bin/busybox wget -q -O - http://{host}/page | md5sum")
        assert done.stdout == f"{expected}  -\n"


def test_networks_come_and_go(podman: Podman, web: str, networks: tuple[str, str]) -> None:
    """What network connect and disconnect change on the host is in the running container."""
    before = _addresses(podman, web)
    assert len(before) == 1
    podman.run("network", "connect", networks[1], web)
    after = _await(podman, web, 2)
    assert (after[0], after[1].rpartition(".")[0]) == (before[0], "10.91.2")
    podman.namespace.run("ping", "-c", "1", "-W", "10", after[1])
    podman.run("network", "disconnect", networks[1], web)
    assert _await(podman, web, 1) == before


def test_hot_added_nic_and_virtual_servers(podman: Podman, web: str) -> None:
    """kata-network and kata-ipvs work on a container of an engine; its own interfaces are not theirs."""
    container = podman.id_of(web)
    runtime = podman.runtime
    runtime.namespace = podman.namespace
    podman.namespace.tap("tap7", "10.92.0.1/24")
    try:
        assert runtime.cli("kata-network", "list-ifaces", container).stdout == "null\n"
        document = nic("tap7", "eth7", "10.92.0.3/24")
        added = runtime.cli("kata-network", "add-iface", container, "-", stdin=json.dumps(document))
        assert (added.returncode, added.stderr) == (0, "")
        assert json.loads(runtime.cli("kata-network", "list-ifaces", container[:12]).stdout) == [
            {"name": "eth7", "mac": "02:42:20:6e:03:01", "ip": ["10.92.0.3/24"], "mtu": 1500}
        ]
        podman.namespace.run("ping", "-c", "1", "-W", "10", "10.92.0.3")
        assert _interfaces(podman, web) == ["eth0", "eth7", "lo"]
        rules = "-A -t 10.9.9.9:80 -s rr\n-a -t 10.9.9.9:80 -r 127.0.0.1:80 -m\n"
        assert runtime.cli("kata-ipvs", "ipvsadm", "--restore", "-", container, stdin=rules).returncode == 0
        listed = runtime.cli("kata-ipvs", "ipvsadm", "--parameters", "-L -n", container)
        assert listed.stdout.endswith(_RULES), listed.stdout
        deleted = runtime.cli("kata-network", "del-iface", container, "-", stdin=json.dumps(document))
        assert (deleted.returncode, deleted.stdout) == (0, "null\n")
        assert _interfaces(podman, web) == ["eth0", "lo"]
    finally:
        runtime.namespace = None
        podman.namespace.run("ip", "link", "delete", "tap7")


def test_pod(podman: Podman, networks: tuple[str, str], unique: Callable[[str], str]) -> None:
    """Two containers of a pod share a VM with its network, names and memory, not their processes; one ID means all."""
    pod = unique("pod")
    infra = ["--infra-image", "localhost/tiny", "--infra-command", "/bin/sleep 1000"]
    with podman.removed(pod):
        podman.run("pod", "create", "--name", pod, "--network", networks[0], *infra)
        run = ["run", "--detach", "--pod", pod, "--name"]
        podman.run(*run, "first", "localhost/tiny", "sh", "-c", "echo shared > /dev/shm/file; echo up; exec sleep 1000")
        assert podman.line_of("first") == "up\n"
        podman.run(*run, "second", "localhost/tiny", "sleep", "1000")
        assert podman.run("exec", "second", "sh", "-c", "cat /dev/shm/file; hostname") == f"shared\n{pod}\n"
        assert podman.run("exec", "second", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline") == "sleep 1000 "
        assert _addresses(podman, "first") == _addresses(podman, "second")
        links = [podman.runtime.root / podman.id_of(name) / "sandbox" for name in ("first", "second")]
        assert len({link.readlink() for link in links}) == 1
        rules = "-A -t 10.9.9.9:80 -s rr"
        for name, words in (("first", rules), ("second", "-D -t 10.9.9.9:80")):
            done = podman.runtime.cli("kata-ipvs", "ipvsadm", "--parameters", words, podman.id_of(name))
            assert (done.returncode, done.stderr) == (0, "")
        podman.run("rm", "--force", "--time", "0", "first")
        assert podman.run("exec", "second", "echo", "alive") == "alive\n"
