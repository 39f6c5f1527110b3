"""Pods of containerd's Container Runtime Interface, as a kubelet makes them, in VMs."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Runtime, nic
from tests.system.engines.conftest import NOTHING, Host
from tests.system.engines.containerd import Containerd
from tests.system.engines.cri import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Namespace
    from tests.system.engines.conftest import Podman
    from tests.system.engines.cri import Message

_SERVE = """
echo page > /www/index.html
httpd -p 80 -h /www
trap 'exit 6' TERM
echo serving >&2
while :; do sleep 0.1; done
"""
_IMAGE = "localhost/pause:1"
_LOCAL = "127.0.0.1"
_EXITED = 2  # CONTAINER_EXITED
_RULES = "TCP  10.9.9.9:80 rr\n  -> 127.0.0.1:80                 Masq    1      0          0         \n"


class Pod:
    """A pod sandbox, and what a kubelet asks for in it."""

    def __init__(self, client: Client, name: str, directory: Path) -> None:
        self._client = client
        self._config: Message = [(1, [(1, name), (2, name), (3, "tests")]), (2, name), (3, str(directory))]
        self.id = client.call("RunPodSandbox", (1, self._config), (2, "kata")).text(1)

    @property
    def address(self) -> str:
        """Its IP address."""
        return self._client.call("PodSandboxStatus", (1, self.id)).text(1, 5, 1)

    def start(self, name: str, *argv: str, megabytes: int = 0) -> str:
        """A container that runs; its ID. Its output goes to a log of its name."""
        limits = [(15, [(1, [(4, megabytes << 20)])])] if megabytes else []
        config: Message = [
            (1, [(1, name)]), (2, [(1, _IMAGE)]), *((3, word) for word in argv), (11, f"{name}.log"), *limits,
        ]  # fmt: skip
        container = self._client.call("CreateContainer", (1, self.id), (2, config), (3, self._config)).text(1)
        self._client.call("StartContainer", (1, container))
        return container

    def remove(self) -> None:
        """End it, with its containers."""
        self._client.call("StopPodSandbox", (1, self.id))
        self._client.call("RemovePodSandbox", (1, self.id))


@pytest.fixture(scope="module")
def containerd(
    engine_namespace: Namespace, engine_runtime: Runtime, podman: Podman, rootfs: Path
) -> Iterator[Containerd]:
    """A containerd with the interface, a bridge network 10.93.0.0/24, and the image that pods and containers use."""
    directory = Path(tempfile.mkdtemp(prefix="kata-cri-"))
    (directory / "networks").mkdir()
    addresses = {
        "type": "host-local", "dataDir": f"{directory}/addresses", "ranges": [[{"subnet": "10.93.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni93", "isGateway": True, "ipam": addresses}
    network = {"cniVersion": "0.4.0", "name": f"tests{directory.name}", "plugins": [bridge]}
    (directory / "networks/10-tests.conflist").write_text(json.dumps(network))
    made = Containerd(directory, engine_namespace, engine_runtime, interface=True)
    try:
        podman.commit_pause(_IMAGE, directory / "pause.tar")
        made.run("--namespace", "k8s.io", "images", "import", str(directory / "pause.tar"))
        yield made
    finally:
        made.close()
        # containerd gives the runtime a root of its own for each of its namespaces.
        shutil.rmtree(engine_runtime.root / "k8s.io", ignore_errors=True)
        shutil.rmtree(directory)


@pytest.fixture
def client(containerd: Containerd) -> Iterator[Client]:
    """A client of it."""
    made = Client(containerd.socket)
    yield made
    made.close()


@contextmanager
def _pod(client: Client, name: str, directory: Path) -> Iterator[Pod]:
    made = Pod(client, name, directory)
    try:
        yield made
    finally:
        made.remove()


def test_life_of_a_pod(
    client: Client, engine_runtime: Runtime, engine_namespace: Namespace, unique: Callable[[str], str], tmp_path: Path,
    rootfs: Path,
) -> None:  # fmt: skip
    """Two containers share a pod's VM; exec, statistics, limits, logs, NICs and virtual servers work in it."""
    name = unique("pod")
    runtime = Runtime(engine_runtime.root / "k8s.io", engine_runtime.config)
    runtime.namespace = engine_namespace
    with _pod(client, name, tmp_path) as pod:
        web = pod.start("web", "/bin/sh", "-c", _SERVE)
        other = pod.start("other", "/bin/sleep", "1000", megabytes=48)
        links = [runtime.root / container / "sandbox" for container in (web, other)]
        assert {str(link.readlink()) for link in links} == {pod.id}
        assert client.execute(other, "wget", "-q", "-O", "-", f"http://{_LOCAL}/") == (0, "page\n", "")
        assert client.execute(web, "sh", "-c", "hostname; echo bad >&2; exit 5") == (5, f"{name}\n", "bad\n")
        assert client.execute(other, "cat", "/sys/fs/cgroup/memory.max") == (0, f"{48 << 20}\n", "")
        page = engine_namespace.run(f"{rootfs}/bin/busybox", "wget", "-q", "-O", "-", f"http://{pod.address}/")
        assert page.stdout == "page\n"
        usage = client.call("ContainerStats", (1, other))
        assert (usage.text(1, 1, 1), usage.number(1, 3, 2, 1) > 0) == (other, True)
        client.call("UpdateContainerResources", (1, other), (2, [(4, 56 << 20)]))
        assert client.execute(other, "cat", "/sys/fs/cgroup/memory.max") == (0, f"{56 << 20}\n", "")
        _change_network(runtime, pod.id, web, other)
        client.call("StopContainer", (1, web), (2, 20))
        status = client.call("ContainerStatus", (1, web))
        assert (status.number(1, 3), status.number(1, 7)) == (_EXITED, 6)
        assert (tmp_path / "web.log").read_text().split(" ", 1)[1] == "stderr F serving\n"
        client.call("RemoveContainer", (1, web))
        assert client.execute(other, "echo", "alive") == (0, "alive\n", "")
    assert Host(runtime.root).left() == NOTHING
    assert [entry for entry in Path("/run/netns").iterdir() if entry.name.startswith("cni-")] == []


def _change_network(runtime: Runtime, pod: str, web: str, other: str) -> None:
    """Hot-add a NIC by one container's ID, list it by the pod's, and balance by the other's."""
    assert runtime.namespace is not None
    runtime.namespace.tap("tap94", "10.94.0.1/24")
    try:
        document = nic("tap94", "eth94", "10.94.0.3/24")
        added = runtime.cli("kata-network", "add-iface", web[:13], "-", stdin=json.dumps(document))
        assert (added.returncode, added.stderr) == (0, "")
        assert json.loads(runtime.cli("kata-network", "list-ifaces", pod).stdout) == [
            {"name": "eth94", "mac": "02:42:20:6e:03:01", "ip": ["10.94.0.3/24"], "mtu": 1500}
        ]
        runtime.namespace.run("ping", "-c", "1", "-W", "10", "10.94.0.3")
        rules = "-A -t 10.9.9.9:80 -s rr\n-a -t 10.9.9.9:80 -r 127.0.0.1:80 -m\n"
        assert runtime.cli("kata-ipvs", "ipvsadm", "--restore", "-", other, stdin=rules).stderr == ""
        assert runtime.cli("kata-ipvs", "ipvsadm", "--parameters", "-L -n", web).stdout.endswith(_RULES)
        deleted = runtime.cli("kata-network", "del-iface", other, "-", stdin=json.dumps(document))
        assert (deleted.returncode, deleted.stdout) == (0, "null\n")
    finally:
        runtime.namespace.run("ip", "link", "delete", "tap94")


def test_program_that_is_missing(
    client: Client, engine_runtime: Runtime, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """A kubelet gets the guest's own words of why a container does not start; the pod goes on."""
    with _pod(client, unique("pod"), tmp_path) as pod:
        with pytest.raises(Exception, match="executable file `/bin/nosuch` not found in \\$PATH") as refused:
            pod.start("missing", "/bin/nosuch")
        assert type(refused.value).__name__ == "_InactiveRpcError"
        assert client.execute(pod.start("other", "/bin/sleep", "1000"), "echo", "alive") == (0, "alive\n", "")
    assert Host(engine_runtime.root / "k8s.io").left() == NOTHING
