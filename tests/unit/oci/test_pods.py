"""Which VM a container joins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.unit.oci.test_bundle import bundle, linux

from kata_runtime.errors import HostError, InputError
from kata_runtime.oci.bundle import Hook
from kata_runtime.oci.container import (
    CREATING,
    RUNNING,
    STOPPED,
    Container,
    load_container,
    save_container,
)
from kata_runtime.oci.pods import Known, known_containers, sandbox_for
from kata_runtime.sandbox.identity import sandbox_of
from kata_runtime.sandbox.process import start_time_of
from kata_runtime.sandbox.record import boot_id

if TYPE_CHECKING:
    from pathlib import Path

_ME = os.getpid()


def _container(container_id: str, sandbox_id: str, shim: int = _ME) -> Container:
    return Container(
        container_id,
        sandbox_id,
        "/b",
        "2026-11-25T00:00:00+00:00",
        {},
        RUNNING,
        shim,
        start_time_of(shim) or 0,
        77,
        boot_id=boot_id(),
    )


_KNOWN = Known((_container("pod", "pod"), _container("member", "pod", os.getppid())))
_ALL = [{"type": "mount"}]


def _named(**paths: str) -> list[dict[str, str]]:
    return _ALL + [{"type": kind, "path": path} if path else {"type": kind} for kind, path in paths.items()]


_SHARED = _named(network=f"/proc/{_ME}/ns/net")
_CRIO = {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "pod"}
_CRI = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod"}
_CASES: list[tuple[str, dict[str, str], list[dict[str, str]], str | None]] = [
    ("alone", {}, _named(network="/run/netns/nosuch"), None),
    ("a new network namespace", {}, _named(network=""), None),
    ("Podman's annotations", _CRIO, _SHARED, "pod"),
    ("containerd's annotations", _CRI, _SHARED, "pod"),
    ("a sandbox by the CRI", _CRI | {"io.kubernetes.cri.container-type": "sandbox"}, _named(network=""), None),
    ("a pod without a container", _CRIO | {"io.kubernetes.cri-o.SandboxID": "x"}, _named(network=""), None),
    ("the network of a container's shim", {}, _named(network=f"/proc/{_ME}/ns/net"), "pod"),
    ("the same network by another path", {}, _named(network="/proc/self/ns/net"), "pod"),
    ("ipc of a member", {}, _named(network=f"/proc/{_ME}/ns/net", ipc=f"/proc/{os.getppid()}/ns/ipc"), "pod"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "annotations", "namespaces", "sandbox"), _CASES, ids=[case[0] for case in _CASES])
def test_sandbox_of_a_new_container(
    name: str, annotations: dict[str, str], namespaces: list[dict[str, str]], sandbox: str | None
) -> None:
    """Annotations or the namespaces to share decide which VM it is, or that it gets its own."""
    asked = bundle(annotations=annotations, linux=linux(namespaces=namespaces))
    assert sandbox_for(asked, _KNOWN) == sandbox


_REFUSED = [
    (
        _named(network="", ipc="/proc/1/ns/ipc"),
        (
            "the ipc namespace /proc/1/ns/ipc belongs to no container of kata-runtime; "
            "only containers of one VM can share it"
        ),
    ),
    (
        _named(network="", ipc=f"/proc/{_ME}/ns/ipc"),
        "sandbox 'pod' has a network of its own; the container must share that",
    ),
]


@pytest.mark.parametrize(("namespaces", "message"), _REFUSED, ids=[message for _, message in _REFUSED])
def test_namespaces_that_cannot_be_shared(namespaces: list[dict[str, str]], message: str) -> None:
    """Namespaces of foreign processes, and a network beside that of the VM, are refused."""
    with pytest.raises(InputError) as raised:
        sandbox_for(bundle(linux=linux(namespaces=namespaces)), _KNOWN)
    assert str(raised.value) == message


def test_guest_pid_of_a_shim() -> None:
    """A shim's pid on the host stands for its container's first process in the guest; other pids for nothing."""
    assert _KNOWN.guest_pid(_ME) == 77
    with pytest.raises(InputError) as raised:
        _KNOWN.guest_pid(1)
    assert str(raised.value) == "process 1 is not the shim of a container of kata-runtime"


def test_records(tmp_path: Path) -> None:
    """A container's record comes back as it was; the link in a member's directory leads to its sandbox."""
    container = _container("member", "pod")._replace(
        cgroups=("/sys/fs/cgroup/a",), poststop=(Hook("/bin/x", ("x",), ("A=b",), 2),), annotations={"a": "b"}
    )
    (tmp_path / "member").mkdir()
    (tmp_path / "member" / "sandbox").symlink_to("pod")
    save_container(str(tmp_path), container)
    assert load_container(str(tmp_path), "member") == container
    assert load_container(str(tmp_path), "other") is None
    assert known_containers(str(tmp_path)) == Known((container,))
    assert (sandbox_of(str(tmp_path), "member"), sandbox_of(str(tmp_path), "pod")) == ("pod", "pod")
    for damaged in ("{", "[]", '{"version":1}', '{"version":2}'):
        (tmp_path / "member" / "container.json").write_text(damaged)
        with pytest.raises(HostError) as raised:
            load_container(str(tmp_path), "member")
        assert str(raised.value).startswith(f"{tmp_path}/member/container.json is damaged: ")


def test_status_follows_the_shim() -> None:
    """A container is stopped once its shim is gone, whatever its record says."""
    alive = _container("a", "a")
    gone = alive._replace(shim_start_time=1)
    being_made = Container("a", "a", "/b", "", {})
    assert [one.current_status() for one in (alive, gone, being_made)] == [RUNNING, STOPPED, CREATING]
