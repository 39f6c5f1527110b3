"""NICs and routes: commands as a user types them, next to the same work without them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tests.system.conftest import Sandbox, nic

from bench.harness import in_guest, machine, medians, run, seconds, table, write
from kata_runtime.cli.recovery import recover
from kata_runtime.netlink.link import RTNLGRP_LINK, links_of, set_link
from kata_runtime.netlink.message import iter_messages
from kata_runtime.netlink.request import call_each
from kata_runtime.netlink.transport import Family
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.session import Session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUTES = 2000
_MAC = "02:42:20:6e:03:01"
# Joins the namespace of the commands, so that it can open the TAP.
_RAW = "bench.raw_hotplug"


def measure(sandbox: Sandbox) -> None:
    """Write docs/benchmarks/network.md."""
    namespace = sandbox.runtime.namespace
    assert namespace is not None
    namespace.tap("tap0", "10.0.0.1/16")
    document = json.dumps(nic("tap0", "eth0", "10.0.0.3/16")).encode()

    def typed(*words: str, data: bytes = b"") -> Callable[[], float]:
        argv = sandbox.runtime.argv(*words)
        return lambda: seconds(lambda: run(argv, data))

    add = typed("kata-network", "add-iface", sandbox.id, "-", data=document)
    delete = typed("kata-network", "del-iface", sandbox.id, "-", data=document)
    add()
    bare = [*namespace.prefix, "env", "A=1", sys.executable, "-I", "-S", "-c", "pass"]
    start = medians(
        {
            "python3 -c pass": lambda: seconds(lambda: run(bare)),
            "list-ifaces": typed("kata-network", "list-ifaces", sandbox.id),
            "list-routes": typed("kata-network", "list-routes", sandbox.id),
        },
        rounds=21,
    )
    delete()
    added: dict[str, list[float]] = {"add": [], "raw": [], "delete": []}
    for _ in range(11):
        added["add"].append(add())
        added["delete"].append(delete())
        done = run([*namespace.prefix, sys.executable, "-m", _RAW, str(sandbox.root), sandbox.id])
        added["raw"].append(float(done))
    middle = {name: sorted(values)[len(values) // 2] for name, values in added.items()}
    routes = _routes(sandbox, add, delete)
    _report(load_record(str(sandbox.directory)).accelerator, start, middle, routes)


def _report(accelerator: str, start: dict[str, float], middle: dict[str, float], routes: list[list[str]]) -> None:
    base = start["python3 -c pass"]
    rows = [[f"`{name}`", f"{value * 1000:.0f} ms", f"{value / base:.1f}"] for name, value in start.items()]
    names = {"raw": "raw QMP and netlink, one process, connected", "add": "`add-iface`", "delete": "`del-iface`"}
    plug = [
        [words, f"{middle[name] * 1000:.0f} ms", f"{middle[name] / middle['raw']:.1f}"] for name, words in names.items()
    ]
    text = f"# NICs and routes\n\n{machine(accelerator)} `make bench` writes this file.\n\n"
    text += "## Start-up\n\n" + table(["command", "time", "ratio"], rows)
    text += "\n## Hot-plug\n\n" + table(["what", "time", "ratio"], plug)
    text += f"\n## {_ROUTES} routes in one list\n\n"
    text += "`ip` is timed inside the guest; ours with its whole start-up, from outside.\n\n"
    text += table(["what", "ours", "`ip -batch`", "ratio"], routes)
    write("network.md", text)


def _routes(sandbox: Sandbox, add: Callable[[], float], delete: Callable[[], float]) -> list[list[str]]:
    add()
    networks = [f"10.{100 + number // 256}.{number % 256}.0/24" for number in range(_ROUTES)]
    rows = [{"dest": network, "gateway": "10.0.0.1", "device": "eth0"} for network in networks]
    data = json.dumps(rows).encode()
    batches = {
        verb: "".join(f"route {verb} {network} via 10.0.0.1 dev eth0\n" for network in networks).encode()
        for verb in ("add", "del")
    }

    def ours(verb: str) -> Callable[[], float]:
        words = ["kata-network", verb, sandbox.id, *(["-"] if verb != "list-routes" else [])]
        argv = sandbox.runtime.argv(*words)
        return lambda: seconds(lambda: run(argv, data))

    # By its path: the shell of the guest, busybox, has an ip of its own and prefers that.
    def real(words: str, data: bytes = b"") -> Callable[[], float]:
        return lambda: in_guest(sandbox, f"/bin/ip {words} >/dev/null", data)

    steps = {
        "add": ours("add-route"),
        "list": ours("list-routes"),
        "delete": ours("del-route"),
        "real add": real("-batch -", data=batches["add"]),
        "real list": real("-j route show"),
        "real delete": real("-batch -", data=batches["del"]),
    }
    found = medians(steps)
    delete()
    return [
        [name, f"{found[name]:.2f} s", f"{found[f'real {name}']:.2f} s", f"{found[name] / found[f'real {name}']:.2f}"]
        for name in ("add", "list", "delete")
    ]


def raw_hotplug(session: Session, tap: int) -> float:
    """The least that adding a NIC takes: QMP and netlink on open connections; seconds."""
    monitor, channel = session.monitor(), session.channel()
    found: list[int] = []

    def is_it(datagram: bytes) -> bool:
        links = links_of(list(iter_messages(datagram)))
        found.extend(link.index for link in links if link.mac == _MAC)
        return bool(found)

    def plug() -> None:
        with channel.subscribe(Family.ROUTE, RTNLGRP_LINK) as arrivals:
            monitor.send_fd(tap, "raw")
            monitor.execute("netdev_add", {"type": "tap", "id": "raw", "fd": "raw"})
            device = {"driver": "virtio-net-pci", "id": "raw", "netdev": "raw", "bus": "rp31", "mac": _MAC}
            monitor.execute("device_add", {**device, "disable-legacy": "on", "romfile": ""})
            arrivals.wait(is_it, 20, "the NIC")
            call_each(channel, Family.ROUTE, [set_link(found[0], name="eth0"), set_link(found[0], up=True)])

    taken = seconds(plug)
    with monitor.listen("DEVICE_DELETED") as events:
        monitor.execute("device_del", {"id": "raw"})
        events.wait(lambda data: data.get("device") == "raw", 20, awaited="the NIC's removal")
    monitor.execute("netdev_del", {"id": "raw"})
    return taken


def raw_hotplug_of(root: str, container_id: str) -> float:
    """``raw_hotplug`` with connections of its own."""
    from kata_runtime.vmm.tap import close_all, open_tap

    taps = open_tap("tap0", 1)
    try:
        with open_session(root, container_id, recover) as session:
            session.monitor()
            session.channel().sysctl("kernel/ostype")
            return raw_hotplug(session, taps[0])
    finally:
        close_all(taps)
