"""A carried network namespace: the time to copy it into the guest and to follow changes, and the cost of packets."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.system.carried.conftest import Carried
from tests.system.conftest import network_namespace, nic

from bench.harness import machine, medians, run, seconds, table, write
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Namespace, Sandbox

_MIB = 100
_PORT = 5001
# Accepts one connection and prints the time from its first byte to its last.
_SINK = """
import socket, sys, time
with socket.create_server(("", int(sys.argv[1]))) as listening:
    print("ready", flush=True)
    with listening.accept()[0] as peer:
        buffer, size, start = bytearray(1 << 20), 0, None
        while count := peer.recv_into(buffer):
            start = start or time.perf_counter()
            size += count
    print(size / (time.perf_counter() - start) / (1 << 20))
"""
_SOURCE = """
import socket, sys
chunk = bytes(1 << 20)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as peer:
    for _ in range(int(sys.argv[3])):
        peer.sendall(chunk)
"""


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/carried.md."""
    stem = f"kata-bench-{os.getpid()}"
    plain = sandbox.runtime.namespace
    assert plain is not None
    with network_namespace(f"{stem}-in") as inside, network_namespace(f"{stem}-out") as outside:
        carried = Carried(sandbox, inside, outside)
        times = _times(carried)
        carried.veth("eth0", 40)
        carried.reconcile(creating=True)
        plain.tap("tap40", "10.41.0.1/24")
        document = nic("tap40", "net1", "10.41.0.3/24", mac="02:42:20:6e:03:41")
        assert sandbox.network("add-iface", document).stderr == ""
        ways = {
            "a TAP of add-iface": (plain, "10.41.0"),
            "a veth, redirected": (outside, "10.40.0"),
        }
        speeds = {
            f"{way}, {direction}": _throughput(sandbox, where, network, inwards=direction == "in")
            for direction in ("in", "out")
            for way, (where, network) in ways.items()
        }
        rates = medians(speeds)
        assert sandbox.network("del-iface", document).stderr == ""
        inside.run("ip", "link", "delete", "eth0")
        carried.reconcile()
    _report(load_record(str(sandbox.directory)).accelerator, times, rates)


def _times(carried: Carried) -> dict[str, float]:
    """Each with its own locking and connections, in a process that has loaded everything."""
    inside = carried.inside

    def plug() -> float:
        carried.veth("eth0", 42)
        inside.run("ip", "route", "add", "default", "via", "10.42.0.1")
        return seconds(lambda: carried.reconcile(creating=True))

    def nothing() -> float:
        return seconds(carried.reconcile)

    def route() -> float:
        inside.run("ip", "route", "add", "10.99.0.0/16", "via", "10.42.0.1")
        return seconds(carried.reconcile)

    def unplug() -> float:
        inside.run("ip", "link", "delete", "eth0")
        return seconds(carried.reconcile)

    return medians(
        {
            "a veth with two addresses and a default route comes along": plug,
            "nothing has changed": nothing,
            "a route was added": route,
            "the veth has gone": unplug,
        }
    )


def _throughput(sandbox: Sandbox, where: Namespace, network: str, *, inwards: bool) -> Callable[[], float]:
    """MiB/s of one connection between the guest (.3) and the other end (.1)."""

    def measured() -> float:
        ends = [sandbox.runtime.argv("exec", sandbox.id, "python3"), [*where.prefix, sys.executable]]
        taking, giving = ends if inwards else reversed(ends)
        sink = [*taking, "-c", _SINK, str(_PORT)]
        with subprocess.Popen(sink, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            run([*giving, "-c", _SOURCE, f"{network}.{3 if inwards else 1}", str(_PORT), str(_MIB)])
            return float(process.stdout.readline())

    return measured


def _report(accelerator: str, times: dict[str, float], rates: dict[str, float]) -> None:
    text = f"# A carried network namespace\n\n{machine(accelerator)} `make bench` writes this file.\n\n"
    text += "## One round of `reconcile`\n\n"
    text += table(["what", "time"], [[name, f"{value * 1000:.0f} ms"] for name, value in times.items()])
    text += f"\n## {_MIB} MiB over one TCP connection, into the guest and out of it\n\n"
    rows = []
    for name, rate in rates.items():
        base = rates[f"a TAP of add-iface, {name.rpartition(' ')[2]}"]
        rows.append([name, f"{rate:.0f} MiB/s", f"{rate / base:.2f}"])
    write("carried.md", text + table(["through", "throughput", "ratio"], rows))
