"""The Debian release that this host does not have: its guest is built here and works under this host's QEMU."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import Runtime, Sandbox, booted, nic
from tests.system.containers.conftest import Guest
from tests.system.image.private_apt import other_release

from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.image import DESCRIPTION_NAME, INITRD_NAME, KERNEL_NAME
from kata_runtime.ipvs.commands import open_engine
from kata_runtime.ipvs.sockopt_table import ServerDetails
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.conftest import Namespace
    from tests.system.image.conftest import Build

_KERNELS = {"12": "6.1.", "13": "6.12."}
_PYTHONS = {"12": "Python 3.11.", "13": "Python 3.13."}
_MANY_RULES = [f"-A -t 10.3.{n}.1:80 -s rr" for n in range(250)]
_SERVICE = ["TCP", "172.16.0.3:80", "mh", "->", "10.2.0.11:8080", "Masq", "3", "0", "0"]


@contextmanager
def _containers(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Guest]:
    command_port = SandboxPaths(str(sandbox.directory)).exec_socket(RUNTIME_EXEC_PORT)
    channel = AgentChannel(SandboxPaths(str(sandbox.directory)).control, command_port)
    try:
        yield Guest(sandbox, channel, unique)
    finally:
        channel.close()


def test_guest_of_the_other_release(
    tmp_path: Path, other_build: Build, runtime: Runtime, namespace: Namespace, unique: Callable[[str], str]
) -> None:
    """Its kernel and Python are that release's; NICs, routes, virtual servers and containers work in it."""
    release = other_release()
    image = other_build.wait()
    kernel = json.loads((image / DESCRIPTION_NAME).read_text())["release"]
    assert kernel.startswith(_KERNELS[release])
    config = tmp_path / "configuration.toml"
    config.write_text(
        "[hypervisor.qemu]\n"
        f'kernel = "{image / KERNEL_NAME}"\n'
        f'initrd = "{image / INITRD_NAME}"\n'
        'accelerator = "tcg"\n'
        'template = "off"\n'
    )
    other = Runtime(runtime.root, config)
    other.namespace = namespace
    namespace.tap("tap0", "172.16.0.1/16")
    with booted(other, unique("other")) as sandbox:
        assert sandbox.guest("uname", "-r").stdout == f"{kernel}\n"
        assert sandbox.guest("python3", "--version").stdout.startswith(_PYTHONS[release])
        assert sandbox.network("add-iface", nic("tap0", "eth0", "172.16.0.3/16")).returncode == 0
        assert "1 received" in namespace.run("ping", "-c", "1", "172.16.0.3").stdout
        route = [{"dest": "10.2.0.0/16", "gateway": "172.16.0.1", "device": "eth0"}]
        assert json.loads(sandbox.network("update-routes", route).stdout) == route
        for rule in ("-A -t 172.16.0.3:80 -s mh", "-a -t 172.16.0.3:80 -r 10.2.0.11:8080 -w 3"):
            assert sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", rule, sandbox.id).returncode == 0
        assert sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-L", sandbox.id).stdout.split()[-9:] == _SERVICE
        done = sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id, stdin="\n".join(_MANY_RULES))
        assert (done.returncode, done.stderr) == (0, "")
        with sandbox.session() as session:
            engine = open_engine(session)
            # The uses of its modules show that one socket option lists all services.
            assert engine.all_servers(ServerDetails(statistics=True, tunnels=True), repr) is not None
            assert engine.count() == len(_MANY_RULES) + 2
        with _containers(sandbox, unique) as guest, guest.started("sh", "-c", "cat; exit 3") as (_, shim):
            assert shim.outcome(b"in\n") == (3, b"in\n", b"")
        assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
        assert sandbox.network("list-ifaces").stdout == "null\n"
