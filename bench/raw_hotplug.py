"""Prints how many seconds a raw hot-plug takes: ROOT ID as arguments; runs in the namespace of the TAP."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench.harness import seconds
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import RTNLGRP_LINK, links_of, set_link
from kata_runtime.netlink.message import iter_messages
from kata_runtime.netlink.transport import Family
from kata_runtime.recovery import recover
from kata_runtime.sandbox.session import open_session
from kata_runtime.vmm.tap_device import close_all, open_tap

if TYPE_CHECKING:
    from kata_runtime.sandbox.session import Session

TAP = "tap0"
_MAC = "02:42:20:6e:03:01"


def raw_hotplug(session: Session, tap: int) -> float:
    """The least that adding a NIC takes: QMP and netlink on open connections; seconds."""
    monitor, channel = session.monitor(), session.channel()
    found: list[int] = []

    def is_it(datagram: bytes) -> bool:
        links = links_of(list(iter_messages(datagram)))
        found.extend(link.index for link in links if str(link.mac) == _MAC)
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
    """``raw_hotplug`` on the TAP of the benchmark, with connections of its own."""
    taps = open_tap(TAP, 1)
    try:
        with open_session(root, container_id, recover) as session:
            session.monitor()
            session.channel().sysctl("kernel/ostype")
            return raw_hotplug(session, taps[0])
    finally:
        close_all(taps)


if __name__ == "__main__":
    print(raw_hotplug_of(sys.argv[1], sys.argv[2]))
