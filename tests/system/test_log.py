"""The log of a real command: each of its operations on host, QEMU and guest."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from tests.system.conftest import Namespace, Sandbox, nic
from tests.unit.typed_addresses import interface_address, mac

from kata_runtime.sandbox.record import NicRecord, document_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAC = "02:42:20:6e:03:01"


def _read(log: Path) -> list[dict[str, object]]:
    """The records of this command without the fields that differ from run to run, after a look at these."""
    records = []
    for line in log.read_text().splitlines():
        record = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record.pop("time"))
        assert record.pop("pid") > 0
        assert record.pop("name") == "kata_runtime"
        if record["level"] == "debug":
            assert 0 <= record.pop("seconds") < 60
        for field in ("bytes_sent", "bytes_received"):
            if field in record:
                assert record.pop(field) > 0
        records.append(record)
    return records


def _netlink(kernel: str, messages: int) -> dict[str, object]:
    counts = {"blocks": 1, "messages": messages, "errno": 0}
    return {"level": "debug", "message": "netlink", "kernel": kernel, "family": "ROUTE", **counts}


def _qmp(command: str, **arguments: object) -> dict[str, object]:
    return {"level": "debug", "message": "qmp", "command": command, "arguments": arguments, "result": {}}


def test_add_iface_with_details(
    sandbox: Sandbox, namespace: Namespace, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Every lock, netlink exchange, QMP command, awaited notification and write of the record is in the log."""
    tap = unique("t")
    namespace.tap(tap)
    log = tmp_path / "log"
    document = nic(tap, "eth1", "10.1.0.3/24", mac=_MAC)
    options = ("--debug", "--log", str(log), "--log-format", "json")
    done = sandbox.cli(*options, "kata-network", "add-iface", sandbox.id, "-", stdin=json.dumps(document))
    removed = sandbox.network("del-iface", document)
    assert (done.returncode, done.stderr, removed.returncode) == (0, "", 0)
    place = os.stat(f"/run/netns/{namespace.name}")
    address, held_in = interface_address("10.1.0.3/24"), f"{place.st_dev}:{place.st_ino}"
    added = NicRecord("eth1", tap, mac(_MAC), 1500, (address,), slot=0, namespace=held_in)
    record = str(sandbox.directory / "record.json")
    assert _read(log) == [
        {"level": "info", "message": f"kata-network add-iface {sandbox.id!r} '-'"},
        {"level": "debug", "message": "lock", "path": str(sandbox.directory / "lock")},
        _netlink("host", 1),
        _netlink("host", 1),
        {"level": "debug", "message": "netlink subscription", "family": "ROUTE", "group": 1},
        {"level": "debug", "message": "agent connection", "path": str(sandbox.directory / "control.sock")},
        _netlink("guest", 1),
        {"level": "debug", "message": "lock", "path": str(sandbox.root / ".lock")},
        {
            "level": "debug",
            "message": "record",
            "path": record,
            "pending": [{"kind": "interface.add", "nic": json.loads(json.dumps(document_of(added)))}],
        },
        {"level": "debug", "message": "qmp connection"},
        _qmp("getfd", fdname="nic0.tap0"),
        _qmp("netdev_add", type="tap", id="nic0", fd="nic0.tap0"),
        _qmp(
            "device_add",
            driver="virtio-net-pci",
            id="nic0",
            netdev="nic0",
            bus="rp0",
            mac=_MAC,
            romfile="",
            **{"disable-legacy": "on"},
        ),
        {"level": "debug", "message": "netlink notification", "awaited": "the NIC's arrival in the container"},
        _netlink("guest", 4),
        {"level": "debug", "message": "record", "path": record, "pending": []},
        {"level": "info", "message": "exit status 0"},
    ]
