"""Throughput and latency of each kind of NIC, next to QEMU started by hand with the same options."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.system.conftest import booted, network_namespace

from bench.data_path_sides import PORT, Nic, from_first, from_host, sides
from bench.dpdk_switch import HOST_DEVICE, Switch
from bench.harness import RESULTS, bench_runtime, machine, ratio, table, template_of, write
from bench.plot import bars
from bench.raw_machine import arguments_of
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench.data_path_sides import Side

_ROUNDS = 5
_BYTES_MIN, _BYTES_MAX = 4 * 1024 * 1024, 128 * 1024 * 1024
# Of a transfer: its size follows from what the first ones took.
_SECONDS = 1.0
_STREAMS = 2
_MESSAGES = 200
_WAYS = ("host to guest", "guest to guest")
_MEASURES = tuple(f"{what} {way}" for way in _WAYS for what in ("MB/s", "µs"))

_TEXT = """# The data path

{machine} `make bench` writes this file.

Two guests with two vCPUs each, traffic by TCP: {streams} connections at once move {least:.0f} to {most:.0f} MB, about
a second's worth, and {messages} messages of 64 bytes are each answered before the next. Ours and two guests started by
hand (the same QEMU arguments, NICs plugged by QMP, set up with `ip` and `tc`) take turns, {rounds} rounds. Throughput
and latency are ours. A ratio says how much slower ours is: 2 is half the throughput, or twice the latency, of what was
started by hand. {vhost_net}

{table}
![MB/s](data-path.svg)

## Which to choose

- **TAP**: the simplest; whatever bridges, filters or counts packets on the host works.
- **TAP with several queues** (`queues`): each vCPU has its own pair. It helps guests with several vCPUs and connections
  on a host with processors to spare.
- **Redirected veth**: what `create` makes of a container's network namespace, as CNI plugins prepare it. A packet
  passes one more interface on the host.
- **vhost-user**: packets do not pass the host's kernel. The back end polls: it takes a whole processor, which has to be
  spare. Here it shares two with the guests, and moves each packet by itself, without segmentation offload.
"""

Found = dict[str, dict[str, list[float]]]  # by measure and side


class Wiring(NamedTuple):
    """Where to send traffic of one kind; ``awake`` is around it."""

    from_host: str
    from_first: str
    awake: Callable[[], AbstractContextManager[None]]


def _macs(subnet: int) -> list[str]:
    return [f"02:42:0a:3d:{subnet:02x}:{guest:02x}" for guest in (1, 2)]


def _bridge(side: Side, subnet: int) -> str:
    name = f"br{subnet}"
    for words in (f"link add {name} type bridge", f"address add 10.61.{subnet}.1/24 dev {name}", f"link set {name} up"):
        side.namespace.run("ip", *words.split())
    return name


def _bridged(subnet: int) -> Wiring:
    return Wiring(f"10.61.{subnet}.11", f"10.61.{subnet}.12", nullcontext)


@contextmanager
def _taps(side: Side, subnet: int, queues: int) -> Iterator[Wiring]:
    bridge = _bridge(side, subnet)
    for guest, mac in enumerate(_macs(subnet)):
        tap = f"tap{subnet}{guest}"
        side.namespace.tap(tap, options=("multi_queue",) if queues else ())
        side.namespace.run("ip", "link", "set", tap, "master", bridge)
        side.plug_tap(Nic(guest, f"eth{subnet}", f"10.61.{subnet}.{11 + guest}/24", mac, queues), tap)
    yield _bridged(subnet)


@contextmanager
def _redirected(side: Side, subnet: int) -> Iterator[Wiring]:
    bridge = _bridge(side, subnet)
    with ExitStack() as stack:
        for guest, mac in enumerate(_macs(subnet)):
            inside = stack.enter_context(network_namespace(f"{side.namespace.name}-{guest}"))
            name, peer = f"eth{subnet}", f"veth{subnet}{guest}"
            address = f"10.61.{subnet}.{11 + guest}/24"
            outside = side.namespace
            inside.run("ip", "link", "add", name, "address", mac, "type", "veth", "peer", peer, "netns", outside.name)
            outside.run("ip", "link", "set", peer, "master", bridge, "up")
            inside.run("ip", "address", "add", address, "dev", name)
            inside.run("ip", "link", "set", name, "up")
            side.plug_redirected(Nic(guest, name, address, mac), inside)
        yield _bridged(subnet)


@contextmanager
def _vhost_user(side: Side, subnet: int) -> Iterator[Wiring]:
    directory = Path(tempfile.mkdtemp(prefix="kata-vhost-"))
    directory.chmod(0o755)
    switch = Switch(directory, side.namespace)
    try:
        switch.start()
        for words in (f"address add 10.61.{subnet + 1}.1/24 dev {HOST_DEVICE}", f"link set {HOST_DEVICE} up"):
            side.namespace.run("ip", *words.split())
        first, second = _macs(subnet)
        host, _ = _macs(subnet + 1)
        with switch.awake():
            for nic, name in (
                (Nic(0, f"eth{subnet}", f"10.61.{subnet}.11/24", first), "first"),
                (Nic(1, f"eth{subnet}", f"10.61.{subnet}.12/24", second), "second"),
                (Nic(0, f"eth{subnet + 1}", f"10.61.{subnet + 1}.11/24", host), "host"),
            ):
                side.plug_vhost_user(nic, directory / name)
        yield Wiring(f"10.61.{subnet + 1}.11", f"10.61.{subnet}.12", switch.awake)
    finally:
        switch.kill()
        shutil.rmtree(directory)


_KINDS: dict[str, Callable[[Side], AbstractContextManager[Wiring]]] = {
    "TAP": lambda side: _taps(side, 1, 0),
    "TAP, 2 queues": lambda side: _taps(side, 2, 2),
    "redirected veth": lambda side: _redirected(side, 3),
    "vhost-user": lambda side: _vhost_user(side, 4),
}


def _measured(side: Side, wiring: Wiring, sizes: list[int]) -> dict[str, float]:
    found = {}
    with wiring.awake():
        for way, client, target, size in zip(_WAYS, (from_host, from_first), wiring[:2], sizes, strict=True):
            taken = client(side, "send", target, str(PORT), str(_STREAMS), str(size))
            found[f"MB/s {way}"] = size / taken / 1e6
            found[f"µs {way}"] = client(side, "ping", target, str(PORT), str(_MESSAGES)) * 1e6
    return found


def _sizes(found: dict[str, float]) -> list[int]:
    """How much to send each way."""
    return [min(max(int(found[f"MB/s {way}"] * 1e6 * _SECONDS), _BYTES_MIN), _BYTES_MAX) for way in _WAYS]


def _compare(kinds: list[str], rounds: int) -> tuple[dict[str, Found], str]:
    """What was found of each kind, and the accelerator."""
    results: dict[str, Found] = {}
    with bench_runtime("default_vcpus = 2") as runtime:
        with booted(runtime, "model") as model:
            record = load_record(str(model.directory))
            arguments = arguments_of(record.pid)
        msix = record.accelerator == "kvm"
        with sides(runtime, arguments, template_of(runtime), msix=msix) as both:
            for kind in kinds:
                with ExitStack() as stack:
                    wirings = [(side, stack.enter_context(_KINDS[kind](side))) for side in both]
                    results[kind] = _in_turns(wirings, rounds)
    return results, record.accelerator


def _in_turns(wirings: list[tuple[Side, Wiring]], rounds: int) -> Found:
    found: Found = {measure: {side.name: [] for side, _ in wirings} for measure in _MEASURES}
    # These find neighbours and fill caches, too.
    first = [_measured(side, wiring, [_BYTES_MIN] * len(_WAYS)) for side, wiring in wirings]
    sizes = _sizes(first[0])
    for _ in range(rounds):
        for side, wiring in wirings:
            for measure, value in _measured(side, wiring, sizes).items():
                found[measure][side.name].append(value)
    return found


def _slower(measure: str, found: dict[str, list[float]]) -> float:
    """How much slower ours is than by hand."""
    ours, raw = found["ours"], found["by hand"]
    return ratio(raw, ours) if measure.startswith("MB/s") else ratio(ours, raw)


def ratios() -> dict[str, float]:
    """What ``make bench-check`` bounds."""
    results, _ = _compare(["TAP"], 3)
    return {
        f"{kind}: {measure}": _slower(measure, found[measure]) for kind, found in results.items() for measure in found
    }


def measure() -> None:
    """Write docs/benchmarks/data-path.md and its plot."""
    results, accelerator = _compare(list(_KINDS), _ROUNDS)
    rows = []
    for kind, found in results.items():
        row = [kind]
        for measure, values in found.items():
            row += [f"{statistics.median(values['ours']):.0f}", f"{_slower(measure, values):.2f}"]
        rows.append(row)
    heading = ["NIC", *(words for measure in _MEASURES for words in (measure, "ratio"))]
    vhost_net = (
        "vhost-net moves the packets of TAPs."
        if accelerator == "kvm" and Path("/dev/vhost-net").exists()
        else ("vhost-net, which needs KVM, is not used here: QEMU moves the packets of TAPs.")
    )
    text = _TEXT.format(
        machine=machine(accelerator),
        streams=_STREAMS,
        least=_BYTES_MIN / 1e6,
        most=_BYTES_MAX / 1e6,
        messages=_MESSAGES,
        rounds=_ROUNDS,
        vhost_net=vhost_net,
        table=table(heading, rows),
    )
    write("data-path.md", text)
    groups = {
        f"{kind}, {way}": {side: statistics.median(values) for side, values in found[f"MB/s {way}"].items()}
        for kind, found in results.items()
        for way in _WAYS
    }
    (RESULTS / "data-path.svg").write_text(bars("Throughput of two TCP connections", "MB/s", groups))
