"""All that a command on a running sandbox could have changed: on the host, in QEMU, in the guest."""

from __future__ import annotations

import os
import time
from select import select
from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.netlink.address import dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import dump_links
from kata_runtime.netlink.transport import Family
from kata_runtime.network.guest_nic import read_states
from kata_runtime.network.route_table import read_table
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.system.conftest import Sandbox

_SETTLE_SECONDS = 5.0
_PAUSE_SECONDS = 0.02
# Long enough for QEMU to notice that a client left.
_QUIET_SECONDS = 0.5


class World(NamedTuple):
    """The state of one sandbox; what the guest's kernel does by itself (link-local addresses) is left out."""

    record: object
    files: tuple[str, ...]
    host_links: tuple[str, ...]
    machine: tuple[str, ...]
    descriptors: int
    links: tuple[object, ...]
    routes: tuple[object, ...]
    servers: str


def look(sandbox: Sandbox, descriptors: Collection[int] = (), *, servers: bool = False) -> World:
    """The state now; QEMU gets a moment to have one of the expected numbers of descriptors.

    With ``servers`` also the guest's virtual servers, as the real program saves them.
    """
    objects = tuple(sandbox.monitor_objects())
    with sandbox.session() as session:
        record = session.record
        channel = session.channel()
        states = read_states(*call_each(channel, Family.ROUTE, [dump_links(), dump_addresses()]))
        table = read_table(channel)
    addresses = {
        state.name: sorted(str(found) for found in state.addresses if not found.address.is_link_local)
        for state in states
    }
    links = sorted((link.name, link.mac, link.mtu, link.is_up) for link in table.links.values())
    namespace = sandbox.runtime.namespace
    # Without the flags: a TAP has a carrier while QEMU holds it.
    shown = [] if namespace is None else namespace.run("ip", "-oneline", "link", "show").stdout.splitlines()
    return World(
        record=record,
        # Locks of exec stay until the sandbox is deleted.
        files=tuple(sorted(path.name for path in sandbox.directory.iterdir() if path.suffix not in (".lock", ".sock"))),
        host_links=tuple(line.split(": ")[1] for line in shown),
        machine=objects,
        descriptors=_descriptors(sandbox, descriptors),
        links=tuple((*link, addresses.get(link[0])) for link in links),
        routes=tuple(table.all_entries()),
        servers=sandbox.guest("ipvsadm", "-Sn").stdout if servers else "",
    )


def differences(found: World, wanted: World) -> str:
    """What is other than it should be, in one line."""
    parts = [
        f"{name} should be {getattr(wanted, name)!r} and is {getattr(found, name)!r}"
        for name in World._fields
        if getattr(found, name) != getattr(wanted, name)
    ]
    return "; ".join(parts)


def _descriptors(sandbox: Sandbox, expected: Collection[int]) -> int:
    """How many QEMU has open: it closes a connection some time after its client did."""
    directory = f"/proc/{load_record(str(sandbox.directory)).pid}/fd"
    end = time.monotonic() + (_SETTLE_SECONDS if expected else _QUIET_SECONDS)
    least = len(os.listdir(directory))
    while least not in expected and time.monotonic() < end:
        select([], [], [], _PAUSE_SECONDS)
        least = min(least, len(os.listdir(directory)))
    return least
