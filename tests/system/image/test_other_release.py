"""The Debian release that this host does not have: its guest is built here and works under this host's QEMU."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.quality.trees import ROOT
from tests.system.conftest import Runtime, Sandbox, booted, nic
from tests.system.containers.conftest import Guest
from tests.system.image.private_apt import apt_configuration, other_release

from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.image import DEFAULT_DESTINATION, Image, build_image
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Namespace

_KERNELS = {"12": "6.1.", "13": "6.12."}
_PYTHONS = {"12": "Python 3.11.", "13": "Python 3.13."}
_SERVICE = ["TCP", "172.16.0.3:80", "mh", "->", "10.2.0.11:8080", "Masq", "3", "0", "0"]


@pytest.fixture
def other_apt(monkeypatch: pytest.MonkeyPatch) -> str:
    """The number of the other release, which apt is made to use."""
    release = other_release()
    # Kept from run to run: a second one fetches only what has changed.
    directory = ROOT / "build" / f"apt-debian-{release}"
    monkeypatch.setenv("APT_CONFIG", str(apt_configuration(directory, release)))
    return release


@pytest.fixture
def image(other_apt: str) -> Iterator[Image]:
    """An image of the other release, where QEMU's unprivileged user can read it."""
    directory = Path(tempfile.mkdtemp(dir=Path(DEFAULT_DESTINATION).parent, prefix=f"debian-{other_apt}-"))
    try:
        directory.chmod(0o755)
        yield build_image(directory / "image", progress=print)
    finally:
        shutil.rmtree(directory)


@contextmanager
def _containers(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Guest]:
    command_port = SandboxPaths(str(sandbox.directory)).exec_socket(RUNTIME_EXEC_PORT)
    channel = AgentChannel(SandboxPaths(str(sandbox.directory)).control, command_port)
    try:
        yield Guest(sandbox, channel, unique)
    finally:
        channel.close()


def test_guest_of_the_other_release(
    tmp_path: Path, other_apt: str, image: Image, runtime: Runtime, namespace: Namespace, unique: Callable[[str], str]
) -> None:
    """Its kernel and Python are that release's; NICs, routes, virtual servers and containers work in it."""
    assert image.release.startswith(_KERNELS[other_apt])
    config = tmp_path / "configuration.toml"
    config.write_text(
        "[hypervisor.qemu]\n"
        f'kernel = "{image.kernel}"\n'
        f'initrd = "{image.initrd}"\n'
        'accelerator = "tcg"\n'
        'template = "off"\n'
    )
    other = Runtime(runtime.root, config)
    other.namespace = namespace
    namespace.tap("tap0", "172.16.0.1/16")
    with booted(other, unique("other")) as sandbox:
        assert sandbox.guest("uname", "-r").stdout == f"{image.release}\n"
        assert sandbox.guest("python3", "--version").stdout.startswith(_PYTHONS[other_apt])
        assert sandbox.network("add-iface", nic("tap0", "eth0", "172.16.0.3/16")).returncode == 0
        assert "1 received" in namespace.run("ping", "-c", "1", "172.16.0.3").stdout
        route = [{"dest": "10.2.0.0/16", "gateway": "172.16.0.1", "device": "eth0"}]
        assert json.loads(sandbox.network("update-routes", route).stdout) == route
        for rule in ("-A -t 172.16.0.3:80 -s mh", "-a -t 172.16.0.3:80 -r 10.2.0.11:8080 -w 3"):
            assert sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", rule, sandbox.id).returncode == 0
        assert sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-L", sandbox.id).stdout.split()[-9:] == _SERVICE
        with _containers(sandbox, unique) as guest, guest.started("sh", "-c", "cat; exit 3") as (_, shim):
            assert shim.outcome(b"in\n") == (3, b"in\n", b"")
        assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
        assert sandbox.network("list-ifaces").stdout == "null\n"
