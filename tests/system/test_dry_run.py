"""--dry-run: what would be done is printed, and nothing is changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.system.conftest import nic

if TYPE_CHECKING:
    from tests.system.conftest import Completed, Namespace, Sandbox

_ROUTE = {"dest": "10.1.0.0/16", "gateway": "172.16.0.9", "device": "eth0"}


def _planned(sandbox: Sandbox, verb: str, document: object) -> Completed:
    return sandbox.cli("kata-network", verb, "--dry-run", sandbox.id, "-", stdin=json.dumps(document))


def _ipvs(sandbox: Sandbox, words: str, *more: str) -> Completed:
    return sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", words, *more, sandbox.id)


def _whole(sandbox: Sandbox, namespace: Namespace) -> tuple[object, ...]:
    """Record, machine and guest, the virtual servers, and this host's interfaces."""
    links = namespace.run("ip", "-d", "-o", "link", "show").stdout
    state = (sandbox.snapshot(), _ipvs(sandbox, "-S").stdout, _ipvs(sandbox, "-L --timeout").stdout)
    # Last: the snapshot's own exec leaves a lock file.
    return (*state, links, sorted(path.name for path in sandbox.directory.iterdir()))


def _dry_runs(sandbox: Sandbox) -> list[Completed]:
    rules = "-A -t 172.16.0.3:81 -s wrr\n-a -t 172.16.0.3:81 -r 10.0.0.2:80 -m -w 3\n"
    restore = ["kata-ipvs", "ipvsadm", "--restore", "-", "--dry-run"]
    return [
        _planned(sandbox, "add-iface", nic("tap1", "eth1", "10.9.0.3/24", mac="02:00:00:00:00:09")),
        _planned(sandbox, "del-iface", {"name": "eth0"}),
        sandbox.cli("kata-network", "del-iface", "--dry-run", "--name=eth0", sandbox.id),
        _planned(sandbox, "add-route", {**_ROUTE, "dest": "10.2.0.0/16"}),
        _planned(sandbox, "del-route", {"dest": "10.1.0.0/16"}),
        _planned(sandbox, "update-routes", [_ROUTE]),
        _ipvs(sandbox, "-a -t 172.16.0.3:80 -r 10.0.0.2:80 -w 2", "--dry-run"),
        _ipvs(sandbox, "-C", "--dry-run"),
        _ipvs(sandbox, "--set 1 2 3", "--dry-run"),
        sandbox.cli(*restore, sandbox.id, stdin=rules),
        sandbox.cli(*restore, "--replace", sandbox.id, stdin=rules),
        sandbox.cli("kata-ipvs", "cleanup", "--dry-run", "--parameters", "-d 203.0.113.1", sandbox.id),
    ]


def test_nothing_changes(sandbox: Sandbox, namespace: Namespace) -> None:
    """Each changing command says what it would do; record, machine, guest, servers and host stay as they were."""
    namespace.tap("tap0", "172.16.0.1/16")
    namespace.tap("tap1")
    assert sandbox.network("add-iface", nic("tap0", "eth0", "172.16.0.3/16")).returncode == 0
    assert sandbox.network("add-route", _ROUTE).returncode == 0
    assert _ipvs(sandbox, "-A -t 172.16.0.3:80 -s rr").returncode == 0
    before = _whole(sandbox, namespace)
    done = _dry_runs(sandbox)
    deletion = [
        "qemu: device_del of NIC eth0, mac 02:42:20:6e:03:01",
        "qemu: netdev_del of tap0",
        "record: without NIC eth0",
    ]
    added = ["ipvs: add service TCP 172.16.0.3:81, scheduler wrr"]
    added += ["ipvs: add server 10.0.0.2:80 of service TCP 172.16.0.3:81, weight 3"]
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * len(done)
    # The guest's number of eth0 is not the same each time.
    assert [json.loads(re.sub(r" interface \d+", "", one.stdout)) for one in done] == [
        [
            "qemu: netdev_add tap tap1, 1 queue pair",
            "qemu: device_add virtio-net-pci, mac 02:00:00:00:00:09, at 01.1/00",
            "guest: name eth1, mtu 1500, address 10.9.0.3/24, up",
            "record: NIC eth1",
        ],
        deletion,
        deletion,
        ["routes: add route 10.2.0.0/16 via 172.16.0.9"],
        ["routes: delete route 10.1.0.0/16 via 172.16.0.9"],
        [],
        ["ipvs: add server 10.0.0.2:80 of service TCP 172.16.0.3:80, weight 2"],
        ["ipvs: delete all services"],
        ["ipvs: set the timeouts 1 2 3"],
        added,
        [*added, "ipvs: delete service TCP 172.16.0.3:80"],
        ["conntrack: delete 0 connection-tracking entries"],
    ]
    assert _whole(sandbox, namespace) == before
    assert _ipvs(sandbox, "-C").returncode == 0
    assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"


def test_refusals_are_the_same(sandbox: Sandbox, namespace: Namespace) -> None:
    """What the real command refuses, its dry run refuses in the same words, with the same answer and exit status."""
    del namespace
    for words, document in {
        ("add-iface", json.dumps(nic("nosuch", "eth0"))),
        ("add-iface", json.dumps(nic("nosuch", "eth0", mtu=50))),
        ("del-iface", '{"name":"eth0"}'),
        ("add-route", json.dumps(_ROUTE)),
        ("del-route", '{"dest":"10.1.0.0/16"}'),
    }:
        real, planned = (
            sandbox.cli("kata-network", words, *dry, sandbox.id, "-", stdin=document) for dry in ((), ("--dry-run",))
        )
        assert (planned.returncode, planned.stdout, planned.stderr) == (1, "null\n", real.stderr), words
        assert (real.returncode, real.stdout) == (1, "null\n")
    refused = _ipvs(sandbox, "-a -t 9.9.9.9:1 -r 10.0.0.2:80", "--dry-run")
    error = "kata-runtime: service TCP 9.9.9.9:1 does not exist; -L shows what there is\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", error)
