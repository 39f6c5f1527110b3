"""config.json read strictly, and what no VM can do refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime.errors import HostError, InputError
from kata_runtime.oci.bundle import Bundle, Hook, Mount, bundle_of, pid_of_namespace, read_bundle
from kata_runtime.oci.json_object import parse_json_object

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/a"}]},
}


def bundle(**changes: object) -> Bundle:
    """The bundle of ``MINIMAL`` with changes."""
    return bundle_of("/b", parse_json_object(json.dumps(MINIMAL | changes).encode(), "config.json"))


def linux(**changes: object) -> dict[str, object]:
    """``MINIMAL``'s linux section with changes."""
    return {**MINIMAL["linux"], **changes}


def test_everything_that_the_host_reads() -> None:
    """All fields that the host must understand arrive, relative paths as the bundle's."""
    document = MINIMAL | {
        "process": {"terminal": True, "consoleSize": {"height": 24, "width": 80}},
        "hostname": "box",
        "mounts": [
            {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ],
        "annotations": {"a": "b"},
        "hooks": {"prestart": [{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 3}]},
        "linux": linux(cgroupsPath="/engine/c", sysctl={"net.a": "1"}),
    }
    assert bundle_of("/b", parse_json_object(json.dumps(document).encode(), "config.json")) == Bundle(
        directory="/b",
        root="/b/rootfs",
        read_only=False,
        terminal=True,
        rows=24,
        columns=80,
        hostname="box",
        mounts=(Mount("/data", "bind", "/b/data", ("rbind", "ro")), Mount("/proc", "proc", "proc", ())),
        namespaces={"mount": "", "network": "/run/netns/a"},
        annotations={"a": "b"},
        hooks={"prestart": (Hook("/bin/hook", ("hook", "x"), ("A=b",), 3),)},
        cgroups_path="/engine/c",
        sysctl={"net.a": "1"},
        document=document,
    )


_REFUSED: list[tuple[dict[str, object], str]] = [
    ({"ociVersion": "1.0.2-a\nb"}, "config.json: ociVersion is '1.0.2-a\\nb'; 1.0.2 and later versions 1 are known"),
    ({"ociVersion": "1.0"}, "config.json: ociVersion is '1.0'; 1.0.2 and later versions 1 are known"),
    ({"ociVersion": "2.0.0"}, "config.json: ociVersion is '2.0.0'; 1.0.2 and later versions 1 are known"),
    ({"ociVersion": 1}, "config.json: ociVersion is '1'; it must be a string"),
    (
        {"hooks": {"prestart": [{"path": "bin/a"}]}},
        "config.json: hooks.prestart[0].path is 'bin/a'; it must be an absolute path of this host",
    ),
    (
        {"hooks": {"poststop": [{"path": "/a", "timeout": -1}]}},
        "config.json: hooks.poststop[0].timeout is -1; it must be more than 0 seconds",
    ),
    ({"hostname": "a\nb"}, "config.json: hostname is 'a\\nb'; it must be one line of at most 64 bytes"),
    ({"hostname": "a" * 65}, f"config.json: hostname is '{'a' * 65}'; it must be one line of at most 64 bytes"),
    (
        {"mounts": [{"destination": "/a", "type": "bind", "source": "/a\0"}]},
        ("config.json has a string with the character U+0000; no path, argument or variable on Linux can contain it"),
    ),
    ({"root": {}}, "config.json: root.path is missing"),
    ({"windows": {}}, "config.json: a section for 'windows' means nothing here"),
    ({"linux": None}, "config.json: linux is missing"),
    ({"linux": []}, "config.json: linux is '[]'; it must be an object"),
    ({"mounts": [{"type": "proc"}]}, "config.json: mounts[0]: destination is missing"),
    ({"mounts": ["/"]}, "config.json: mounts[0] is '/'; it must be an object"),
    ({"annotations": {"a": 1}}, "config.json: annotations.a is '1'; it must be a string"),
    ({"process": {"terminal": 1}}, "config.json: process.terminal is '1'; it must be true or false"),
    (
        {"mounts": [{"destination": "/a", "type": "bind", "source": "/a", "uidMappings": [{}]}]},
        "config.json: mounts[0]: mounts with mapped users are not possible with virtiofs",
    ),
    (
        {"mounts": [{"destination": "/a", "type": "bind", "source": "/a", "options": ["bind", "idmap=uids=0-1-10"]}]},
        "config.json: mounts[0]: mounts with mapped users are not possible with virtiofs",
    ),
    (
        {"hooks": {"createContainer": [{"path": "/x"}]}},
        "config.json: hooks.createContainer: the container's mount namespace is in the guest, out of a hook's reach",
    ),
    (
        {"linux": linux(intelRdt={"closID": "a"})},
        "config.json: linux.intelRdt: the host's cache allocation cannot reach into a VM",
    ),
    (
        {"linux": linux(netDevices={"eth1": {}})},
        "config.json: linux.netDevices: network devices of the host cannot reach into a VM",
    ),
    (
        {"linux": linux(seccomp={"listenerPath": "/s"})},
        "config.json: linux.seccomp.listenerPath: no program of the host can serve a guest's system calls",
    ),
    (
        {"linux": linux(resources={"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}})},
        (
            "config.json: linux.resources.blockIO.throttleReadBpsDevice: "
            "block devices of the host cannot reach into a VM"
        ),
    ),
    (
        {"linux": {"namespaces": [{"type": "mount"}]}},
        "config.json: the host's network cannot be shared with a VM; give the container a network namespace",
    ),
    (
        {"linux": {"namespaces": [{"type": "network"}]}},
        "config.json: the host's mounts cannot be shared with a VM",
    ),
    (
        {"linux": {"namespaces": [{"type": "network"}, {"type": "mount", "path": "/proc/1/ns/mnt"}]}},
        "config.json: linux.namespaces[1]: a mount namespace of the host (/proc/1/ns/mnt) cannot be shared with a VM",
    ),
    (
        {"linux": {"namespaces": [{"type": "time"}]}},
        "config.json: linux.namespaces[0]: there are no namespaces 'time' for containers in a VM",
    ),
    (
        {"linux": {"namespaces": [{"type": "uts"}, {"type": "uts"}]}},
        "config.json: linux.namespaces[1]: the namespace uts is named twice",
    ),
    (
        {"linux": linux(sysctl={"kernel.hostname": "a"})},
        "config.json: linux.sysctl: kernel.hostname is not possible; hostname is a field of its own",
    ),
    (
        {"linux": linux(sysctl={"kernel.domainname": "a"})},
        "config.json: linux.sysctl: kernel.domainname needs the container to have an uts namespace",
    ),
    (
        {"linux": linux(sysctl={"net.a": "1", "fs.mqueue.queues_max": "1"})},
        "config.json: linux.sysctl: fs.mqueue.queues_max needs the container to have an ipc namespace",
    ),
]


@pytest.mark.parametrize(("changes", "message"), _REFUSED, ids=[message for _, message in _REFUSED])
def test_refused_by_name(changes: dict[str, object], message: str) -> None:
    """What is wrong, or out of a VM's reach, is refused in a line that names it."""
    with pytest.raises(InputError) as raised:
        bundle(**changes)
    assert str(raised.value) == message


def test_sysctls_of_namespaces_that_it_has() -> None:
    """Sysctls of the container's own namespaces, and of the VM's kernel as a whole, are accepted."""
    namespaces = [*MINIMAL["linux"]["namespaces"], {"type": "ipc"}, {"type": "uts"}]
    given = {"kernel.domainname": "a", "kernel.shmmax": "1", "vm.max_map_count": "2"}
    assert bundle(linux=linux(namespaces=namespaces, sysctl=given)).sysctl == given


def test_no_bundle(tmp_path: Path) -> None:
    """A directory without config.json, and one whose config.json is no JSON object, are refused."""
    with pytest.raises(HostError) as missing:
        read_bundle(str(tmp_path))
    assert str(missing.value) == f"cannot read {tmp_path}/config.json: No such file or directory"
    for text, reason in (
        ("[1]", "config.json is '[1]'; it must be an object"),
        ('{"a": NaN}', "config.json is not JSON: NaN is no JSON value"),
        ("{", "config.json is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError) as wrong:
            read_bundle(str(tmp_path))
        assert str(wrong.value) == reason


@pytest.mark.parametrize(
    ("path", "pid"),
    [
        ("/proc/7/ns/net", 7), ("/proc/7/ns/NET", None), ("/proc/7/ns/\u00e9", None), ("/proc/self/ns/net", None),
        ("/proc/7/ns/net/x", None), ("/run/netns/a", None),
    ],
)  # fmt: skip
def test_namespaces_of_processes(path: str, pid: int | None) -> None:
    """Only a path of /proc names the process whose namespace it is."""
    assert pid_of_namespace(path) == pid
