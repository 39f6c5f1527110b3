"""Ports of OVN and Neutron: whose time add-port is, many ports on many sandboxes, and a plug in a large OVN."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.host import INTEGRATION_BRIDGE
from lab.logical_switch import LogicalPort, LogicalSwitch
from lab.neutron_lab import running_neutron
from lab.ovn_lab import ovn_lab
from tests.system.conftest import nic
from tests.system.ovn.conftest import Side, sides_of

from bench.harness import RESULTS, bench_runtime, machine, seconds, table, write
from bench.plot import Axis, chart
from bench.simulated_ovn import PORTS_OF_CHASSIS, SimulatedOvn
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.system.conftest import Runtime

_ROUNDS = 7
_PLUGS = 5
_NICS = 32
_SIZES = (0, 1_000, 2_500, 5_000, 10_000)
# What a sandbox needs with all that belongs to it, generously, and as many as are interesting.
_SANDBOX_MEBIBYTES = 2048
_SANDBOXES = range(2, 7)
# How messages of a command's log begin, and whose time these records show.
_PARTS = {
    "Neutron": "Neutron",
    "Open vSwitch": "Open vSwitch and OVN",
    "qmp": "QEMU",
    "netlink host": "this host's kernel",
    "netlink": "the guest",
    "agent": "the guest",
    "run in the guest": "the guest",
    "record": "records on disk",
}
_OWN = "the command itself"
_ROWS = (*dict.fromkeys(_PARTS.values()), _OWN)
Split = dict[str, float]

_TEXT = """# Ports of Neutron and OVN

{machine} `make bench PARTS=ports` writes this file. Hosts are network namespaces with Open vSwitch in user space.

## Whose time `add-port` is

By the command's own log (`--debug --log`). The command itself is Python's start, what it imports (openstacksdk,
ovsdbapp) and what that computes.

{split}
## 32 NICs on each sandbox

{sandboxes} sandboxes on two hosts, {all} ports: the first NIC of a sandbox takes {first}, the 32nd {last}.

![Seconds of add-port, from the first NIC of a sandbox to the 32nd](ports-many.svg)

## A large OVN

The ports and chassis are only records in OVN's databases; one host is real, and has a tunnel to each chassis. "Open
vSwitch and OVN" is the time from the transaction in Open vSwitch's database until OVN reports the port as installed.
The command itself reads that database first, in which each tunnel is a port. A new port is in OVN when northd has
computed its flows and the host has acknowledged them, which comes before `add-port`.

{large}
![Seconds of add-port and of a new port in OVN, by the number of ports](ports.svg)
"""


class Large(NamedTuple):
    """Seconds in an OVN of this many ports."""

    ports: int
    command: float
    switch: float
    own: float
    creation: float


def measure() -> None:
    """Write docs/benchmarks/ports.md, ports.svg and ports-many.svg."""
    with bench_runtime() as runtime:
        splits, accelerator = _splits(runtime)
        many = _many(runtime)
        large = _large(runtime)
    _report(accelerator, splits, many, large)


def _added(side: Side, words: Sequence[str], document: Mapping[str, object] | None) -> tuple[float, Split]:
    """Seconds of an add-port, and of its parts, as its own log has them."""
    log = side.sandbox.root / ".log"
    options = ("--debug", "--log", str(log), "--log-format", "json")
    stdin = "" if document is None else json.dumps(document)
    start = time.perf_counter()
    done = side.sandbox.cli(*options, "kata-network", "add-port", side.sandbox.id, *words, stdin=stdin)
    taken = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr)
    split = dict.fromkeys(_ROWS, 0.0)
    for line in log.read_text().splitlines():
        record = json.loads(line)
        message = f"{record['message']} {record.get('kernel', '')}"
        for beginning, part in _PARTS.items():
            if message.startswith(beginning):
                split[part] += record.get("seconds", 0.0)
                break
    log.unlink()
    split[_OWN] = taken - sum(split.values())
    return taken, split


def _plug(side: Side, port: LogicalPort, mtu: int, name: str = "eth0") -> tuple[float, Split]:
    """``_added`` of a port of OVN."""
    document = nic("", name, f"{port.address}/16", mac=port.mac, mtu=mtu)
    del document["device"]
    return _added(side, ["-", "--ovs", INTEGRATION_BRIDGE, "--iface-id", port.name], document)


def _splits(runtime: Runtime) -> tuple[dict[str, list[Split]], str]:
    """The parts of each of some additions, of a port of Neutron and of one of OVN alone; and the accelerator."""
    found: dict[str, list[Split]] = {"a port of Neutron": [], "a port of OVN": []}
    with ovn_lab(f"kb{os.getpid()}", 1) as lab, running_neutron(lab) as neutron:
        variables = (f"OS_CLIENT_CONFIG_FILE={neutron.clouds}", "OS_CLOUD=lab")
        network = neutron.create("network", name="bench")
        neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.20.0.0/24")
        port = neutron.create("port", network_id=network["id"], name="bench")
        own = LogicalSwitch(lab.central, "own", 7, lab.underlay.guest_mtu)
        (logical,) = own.add_ports("own-1")
        with sides_of(lab, runtime, lambda stem: f"bench-{stem}", *variables) as (side,):
            accelerator = load_record(str(side.sandbox.directory)).accelerator
            for _ in range(_ROUNDS):
                found["a port of Neutron"].append(_added(side, [port["id"]], None)[1])
                side.delete(port["id"])
                found["a port of OVN"].append(_plug(side, logical, own.mtu)[1])
                side.delete(logical.name)
    return found, accelerator


def _sandboxes() -> int:
    """As many as fit into the memory that is free."""
    (free,) = (line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    fitting = int(free) // 1024 // _SANDBOX_MEBIBYTES
    return min(max(fitting, _SANDBOXES.start), _SANDBOXES.stop - 1)


def _many(runtime: Runtime) -> list[list[float]]:
    """For each of 32 NICs, the seconds that each sandbox took to get it."""
    count = _sandboxes()
    names = itertools.count()
    with ovn_lab(f"kb{os.getpid()}") as lab:
        switch = LogicalSwitch(lab.central, "many", 7, lab.underlay.guest_mtu)
        ports = iter(switch.add_ports(*(f"many-{number}" for number in range(_NICS * count))))
        placed = lab._replace(hosts=[lab.hosts[number % len(lab.hosts)] for number in range(count)])
        with sides_of(placed, runtime, lambda stem: f"bench-{stem}{next(names)}") as sides:
            return [
                [_plug(side, next(ports), switch.mtu, f"e{number}")[0] for side in sides] for number in range(_NICS)
            ]


def _large(runtime: Runtime) -> list[Large]:
    """Adds ports in OVNs of increasing size, on its only real host."""
    found = []
    with ovn_lab(f"kb{os.getpid()}", 1) as lab:
        switch = LogicalSwitch(lab.central, "own", 7, lab.underlay.guest_mtu)
        simulated = SimulatedOvn(lab.central)
        with sides_of(lab, runtime, lambda stem: f"bench-{stem}") as (side,):
            for size in _SIZES:
                simulated.grow(size)
                creations, plugs = [], []
                for number in range(_PLUGS):

                    def create(name: str = f"own-{size}-{number}") -> None:
                        switch.add_ports(name)
                        lab.central.settle()

                    creations.append(seconds(create))
                    port = switch.ports[f"own-{size}-{number}"]
                    plugs.append(_plug(side, port, switch.mtu))
                    side.delete(port.name)
                command = statistics.median(taken for taken, _ in plugs)
                plugging, own = (
                    statistics.median(split[part] for _, split in plugs) for part in ("Open vSwitch and OVN", _OWN)
                )
                found.append(Large(size, command, plugging, own, statistics.median(creations)))
    return found


def _report(accelerator: str, splits: dict[str, list[Split]], many: list[list[float]], large: list[Large]) -> None:
    def milliseconds(value: float) -> str:
        return f"{value * 1000:.0f} ms"

    rows = [
        [part, *(milliseconds(statistics.median(split[part] for split in taken)) for taken in splits.values())]
        for part in _ROWS
    ]
    whole = (milliseconds(statistics.median(sum(split.values()) for split in taken)) for taken in splits.values())
    rows.append(["all", *whole])
    medians = [statistics.median(taken) for taken in many]
    (RESULTS / "ports-many.svg").write_text(
        chart(
            f"add-port of the n-th NIC, median of {len(many[0])} sandboxes",
            Axis("NIC of the sandbox", _NICS),
            Axis("seconds", max(medians)),
            {"add-port": list(zip(map(float, range(1, _NICS + 1)), medians, strict=True))},
        )
    )
    (RESULTS / "ports.svg").write_text(
        chart(
            "add-port in an OVN of many ports",
            Axis("ports (a tenth as many chassis)", _SIZES[-1]),
            Axis("seconds", max(max(row.command, row.creation) for row in large)),
            {
                "add-port": [(float(row.ports), row.command) for row in large],
                "Open vSwitch and OVN": [(float(row.ports), row.switch) for row in large],
                "new port in OVN": [(float(row.ports), row.creation) for row in large],
            },
        )
    )
    write(
        "ports.md",
        _TEXT.format(
            machine=machine(accelerator),
            split=table(["whose time", *splits], rows),
            sandboxes=len(many[0]),
            all=len(many[0]) * _NICS,
            first=milliseconds(medians[0]),
            last=milliseconds(medians[-1]),
            large=table(
                ["ports", "chassis", "`add-port`", "Open vSwitch and OVN", "the command itself", "new port in OVN"],
                [
                    [f"{row.ports:,}", f"{row.ports // PORTS_OF_CHASSIS:,}", *map(milliseconds, row[1:])]
                    for row in large
                ],
            ),
        ),
    )
