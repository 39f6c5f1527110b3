"""Records, IDs, locks and configuration, without a machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.unit.typed_addresses import interface_address, mac

from kata_runtime.errors import ContainerError, HostError, InputError
from kata_runtime.sandbox.config import Config, load_config
from kata_runtime.sandbox.identity import check_id, new_id, resolve
from kata_runtime.sandbox.lock import LockFile, LockWait
from kata_runtime.sandbox.neighbours import user_of_device, user_of_port
from kata_runtime.sandbox.process import start_time_of
from kata_runtime.sandbox.record import (
    EndpointKind,
    NicRecord,
    PortRecord,
    Record,
    Work,
    WorkKind,
    load_record,
    save_record,
)

if TYPE_CHECKING:
    from pathlib import Path

_NIC = NicRecord(
    "eth0",
    "tap0",
    mac("02:00:00:00:00:01"),
    1500,
    (interface_address("10.0.0.3/24"), interface_address("fd00::3/64")),
    31,
    2,
    "",
    EndpointKind.TAP,
    "4:26",
)


def test_record_round_trip(tmp_path: Path) -> None:
    """A record is read as it was written; its file is private, and nothing else is left."""
    record = Record(
        "web",
        pid=7,
        start_time=9,
        nics=(_NIC,),
        mirrored=("mtu eth0 1500",),
        pending=(
            Work(WorkKind.ADD_NIC, _NIC),
            Work(WorkKind.DELETE_NIC, name="eth0", refused=True),
            Work(WorkKind.MIRROR, facts=("mtu eth0 1500",)),
            Work(WorkKind.ROUTES),
        ),
    )
    save_record(str(tmp_path), record)
    save_record(str(tmp_path), record)
    assert load_record(str(tmp_path)) == record
    assert [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [("record.json", 0o600)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version":2}',
        '{"version":2,"container_id":"x","nics":[{}]}',
        '{"version":2,"container_id":"x","nics":[{"mac":"02:00","addresses":[],"kind":"tap"}]}',
        '{"version":2,"container_id":"x","nics":[{"mac":"02:00:00:00:00:01","addresses":["10.0.0.3"],"kind":"tap"}]}',
        '{"version":2,"container_id":"x","nics":[],"pid":"1"}',
        '{"version":2,"container_id":"x","nics":[],"pid":true}',
        '{"version":2,"container_id":"x","nics":[],"pid":-1}',
        '{"version":2,"container_id":"x","nics":[],"pid":99999999999}',
        '{"version":2,"container_id":7,"nics":[]}',
        '{"version":2,"container_id":"x","nics":[],"pending":7}',
        '{"version":2,"container_id":"x","nics":[],"pending":[7]}',
        '{"version":2,"container_id":"x","nics":[],"pending":[{"kind":"interface.add","nic":{"slot":1}}]}',
        '{"version":2,"container_id":"x","nics":[],"pending":[{"kind":"interface.add"}]}',
        '{"version":2,"container_id":"x","nics":[],"pending":[{"kind":"ghost"}]}',
        '{"version":2,"container_id":"x","nics":[],"pending":[{"kind":"routes","detail":7}]}',
        '{"version":2,"container_id":"x","nics":[],"ipvs_rule_limit":"7"}',
        '{"version":2,"container_id":"x","nics":[],"cgroups":[7]}',
        '{"version":2,"container_id":"x","nics":[],"vcpus":"2"}',
        "[" * 100_000,
    ],
)
def test_damaged_record(tmp_path: Path, text: str) -> None:
    """A damaged record is reported with its path, never believed."""
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(HostError, match=r"record\.json is damaged"):
        load_record(str(tmp_path))


def test_addresses_of_a_record(tmp_path: Path) -> None:
    """MAC and IP addresses are text in the file; one that a user spelled otherwise is read, too."""
    save_record(str(tmp_path), Record("web", nics=(_NIC,)))
    path = tmp_path / "record.json"
    (saved,) = json.loads(path.read_text())["nics"]
    assert (saved["mac"], saved["addresses"]) == ("02:00:00:00:00:01", ["10.0.0.3/24", "fd00::3/64"])
    path.write_text(path.read_text().replace("fd00::3/64", "FD00:0::3/64"))
    assert load_record(str(tmp_path)).nics == (_NIC,)


def test_record_of_another_version(tmp_path: Path) -> None:
    """A record of another version is left alone."""
    (tmp_path / "record.json").write_text('{"version":1}')
    with pytest.raises(HostError, match="is of version 1, this kata-runtime writes 2"):
        load_record(str(tmp_path))


def test_ids(tmp_path: Path) -> None:
    """IDs resolve by themselves, by an unambiguous beginning, and not otherwise."""
    for name in ("web", "web2", "db"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").touch()
    root = str(tmp_path)
    assert [resolve(root, text) for text in ("web", "web2", "d")] == ["web", "web2", "db"]
    for text in ("we", "x", "", ".lock", "../web"):
        with pytest.raises(ContainerError):
            resolve(root, text)
    assert len(new_id()) == 64
    for bad in ("", ".x", "a/b", "a b", "x" * 129, "ä"):
        with pytest.raises(InputError):
            check_id(bad)


def test_lock_of_a_removed_sandbox(tmp_path: Path) -> None:
    """A lock whose file was removed meanwhile is reported; a held one is not given twice."""
    path = str(tmp_path / "lock")
    first, second = LockFile(path), LockFile(path)
    assert first.acquire(LockWait(), "x")
    assert not second.try_acquire()
    os.unlink(path)
    first.close()
    assert not second.acquire(LockWait(), "x")
    second.close()


def test_configuration(tmp_path: Path) -> None:
    """Known keys are taken, unknown ones are warned about, -1 vCPUs are all."""
    path = tmp_path / "configuration.toml"
    path.write_text(
        "loose = 1\n[hypervisor.qemu]\ndefault_vcpus = -1\ndefault_memory = 256\ndefault_memry = 1\n"
        "[runtime]\nipvs_rule_limit = 5\n[agent.kata]\nx = 1\n"
    )
    warnings: list[str] = []
    config = load_config(str(path), warnings.append)
    expected = Config(default_vcpus=len(os.sched_getaffinity(0)), default_memory=256, ipvs_rule_limit=5)
    assert config == expected
    assert warnings == [
        f"{path}: section [] means nothing here; ignored",
        f"{path}: [hypervisor.qemu] default_memry means nothing here; ignored; did you mean default_memory?",
        f"{path}: section [agent.kata] means nothing here; ignored",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("default_memory = 'x'", "default_memory is 'x'; it must be a whole number"),
        ("default_memory = 127", "default_memory is 127; 128 to 16777216 is possible"),
        ("default_root_ports = 33", "default_root_ports is 33; 0 to 32 is possible"),
        ("default_vcpus = true", "default_vcpus is True; it must be a whole number"),
        ("machine_type = 'pc'", "machine_type is 'pc'; possible: q35"),
        ("accelerator = 'xen'", "accelerator is 'xen'; possible: auto, kvm, tcg"),
    ],
)
def test_wrong_configuration(tmp_path: Path, text: str, reason: str) -> None:
    """A wrong value is reported with file, key and what would be right."""
    path = tmp_path / "configuration.toml"
    path.write_text(f"[hypervisor.qemu]\n{text}\n")
    with pytest.raises(InputError) as refusal:
        load_config(str(path), print)
    assert str(refusal.value) == f"{path}: {reason}"


def test_missing_configuration() -> None:
    """A file that was asked for must be there."""
    with pytest.raises(HostError, match="cannot read the configuration '/nosuch'"):
        load_config("/nosuch", print)


def test_devices_are_named_by_their_namespace(tmp_path: Path) -> None:
    """A device serves another container only if it is of the same namespace; begun NICs count, ended VMs do not."""
    pid = os.getpid()
    started = start_time_of(pid) or 0
    begun = Work(WorkKind.ADD_NIC, _NIC._replace(device="tap1"))
    records = [
        Record("web", pid=pid, start_time=started, nics=(_NIC,), pending=(begun,)),
        Record("old", pid=pid, start_time=started + 1, nics=(_NIC._replace(device="tap2"),)),
    ]
    for record in records:
        (tmp_path / record.container_id).mkdir()
        save_record(str(tmp_path / record.container_id), record)
    asked = [("db", "4:26", "tap0"), ("db", "4:26", "tap1"), ("db", "4:27", "tap0"), ("db", "4:26", "tap2")]
    asked.append(("web", "4:26", "tap0"))
    found = [user_of_device(str(tmp_path), *each) for each in asked]
    assert found == ["web", "web", None, None, None]


def test_ports_are_named_by_their_database(tmp_path: Path) -> None:
    """A port serves another container only if it is of the same Open vSwitch; begun NICs count."""
    pid = os.getpid()
    begun = Work(WorkKind.ADD_NIC, _NIC._replace(device="tap1", port=PortRecord("db-1", "br-int", "unix:/a")))
    nics = (_NIC._replace(port=PortRecord("web-1", "br-int", "unix:/a")),)
    record = Record("web", pid=pid, start_time=start_time_of(pid) or 0, nics=nics, pending=(begun,))
    (tmp_path / "web").mkdir()
    save_record(str(tmp_path / "web"), record)
    asked = [("db", "web-1", "unix:/a"), ("db", "db-1", "unix:/a"), ("db", "web-1", "unix:/b")]
    asked.append(("web", "web-1", "unix:/a"))
    found = [user_of_port(str(tmp_path), own, PortRecord(port, "br0", ovsdb)) for own, port, ovsdb in asked]
    assert found == ["web", "web", None, None]
