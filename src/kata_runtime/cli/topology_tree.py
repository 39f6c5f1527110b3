"""The output of kata-network show as text: a tree. Import it after ``optional_packages.require(RICH)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.filesize import decimal
from rich.text import Text
from rich.tree import Tree

from kata_runtime.cli.rich_output import joined, rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.network.host_devices import Bridge, HostLink
    from kata_runtime.network.topology import GuestNic, NicView, Rates, Topology

_NAME, _DIM, _GOOD, _BAD, _VALUE = "bold cyan", "dim", "green", "bold red", ""
_SEPARATOR = (" · ", _DIM)
# Names of interface kinds, by the kernel's name.
_KINDS = {"tun": "TAP", "": "device"}
_PORTS = 8


def drawn(containers: Sequence[Topology]) -> str:
    """Render the trees of containers."""
    if not containers:
        return "no container runs\n"
    return rendered(Group(*map(_container, containers)))


def _container(shown: Topology) -> Tree:
    record = shown.record
    vcpus = f"{record.vcpus} vCPU{'s' * (record.vcpus != 1)}"
    facts = [(f"{record.accelerator.upper()}, {vcpus}", _VALUE), (f"pid {record.pid}", _DIM)]
    tree = Tree(joined(("container ", _DIM), (record.container_id, "bold"), *_spaced(facts)), guide_style=_DIM)
    for nic in shown.nics:
        _add_nic(tree, nic)
    if not shown.nics:
        tree.add(Text("no NICs", style=_DIM))
    if shown.routes:
        routes = tree.add(Text("routes", style=_DIM))
        for route in shown.routes:
            via = [(" via ", _DIM), (str(route.gateway), _VALUE)] if route.gateway else []
            device = [(" dev ", _DIM), (route.device, _NAME)] if route.device else []
            routes.add(joined((str(route.dest), _VALUE), *via, *device))
    return tree


def _add_nic(tree: Tree, nic: NicView) -> None:
    record = nic.record
    guest = nic.guest
    name = record.name if guest is None else guest.name
    facts = [(str(record.mac), _VALUE)]
    if guest is None:
        facts.append(("missing in the guest", _BAD))
    else:
        facts += [(f"mtu {guest.mtu}", _VALUE), _state(guest)]
    if record.queues > 1:
        facts.append((f"{record.queues} queue pairs", _VALUE))
    facts.append((f"pci {nic.pci_address}", _DIM))
    branch = tree.add(joined(("NIC ", _DIM), (name, _NAME), *_spaced(facts)))
    if guest is not None:
        for address in nic.addresses:
            branch.add(joined(("address ", _DIM), (str(address), _VALUE)))
        branch.add(_traffic(guest, nic.rates))
    _add_host(branch, nic)


def _traffic(guest: GuestNic, rates: Rates | None) -> Text:
    counters = guest.counters
    parts = []
    for arrow, total, speed, troubles in (
        ("↓", counters.received_bytes, rates and rates.received_bytes, _troubles(guest, received=True)),
        ("↑", counters.sent_bytes, rates and rates.sent_bytes, _troubles(guest, received=False)),
    ):
        shown = [] if speed is None else [(f"{decimal(round(speed))}/s", "bold")]
        shown.append((f"{decimal(total)} in all", _DIM))
        parts += [(f"  {arrow} ", _DIM), *_spaced([*shown, *troubles])[1:]]
    return joined(("traffic", _DIM), *parts)


def _troubles(guest: GuestNic, *, received: bool) -> list[tuple[str, str]]:
    counters = guest.counters
    errors = counters.received_errors if received else counters.sent_errors
    dropped = counters.received_dropped if received else counters.sent_dropped
    found = [(errors, "errors"), (dropped, "dropped")]
    return [(f"{count} {word}", "yellow") for count, word in found if count]


def _add_host(branch: Tree, nic: NicView) -> None:
    record, host = nic.record, nic.host
    facts = []
    if record.vhost_user_socket:
        facts.append((record.vhost_user_socket, _VALUE))
        label = joined(("vhost-user ", _DIM), (record.device, _NAME), *_spaced(facts))
    else:
        if host.device is None:
            facts.append((host.missing, _BAD))
        else:
            facts += _link_facts(host.device)
        if host.namespace:
            facts.append((f"in {host.namespace}", _DIM))
        label = joined((f"{_kind(host.device)} ", _DIM), (record.device, _NAME), *_spaced(facts))
    under = branch.add(label)
    if host.peer is not None:
        under = under.add(joined(("peer ", _DIM), (host.peer.name, _NAME), *_spaced(_link_facts(host.peer))))
    if host.bridge is not None:
        _add_bridge(under, host.bridge)


def _add_bridge(under: Tree, bridge: Bridge) -> None:
    kind = "Open vSwitch" if bridge.kind == "openvswitch" else bridge.kind
    facts = [("up", _GOOD) if bridge.is_up else ("down", _BAD)]
    if bridge.datapath:
        facts.append((f"datapath {bridge.datapath}", _VALUE))
    if bridge.tag:
        facts.append((f"VLAN {bridge.tag}", _VALUE))
    if bridge.error:
        facts.append((bridge.error, _BAD))
    shown = under.add(joined((f"port of {kind} ", _DIM), (bridge.name, _NAME), *_spaced(facts)))
    for port in bridge.ports[:_PORTS]:
        shown.add(joined((f"{_kind(port)} ", _DIM), (port.name, _NAME), _SEPARATOR, _state(port)))
    if len(bridge.ports) > _PORTS:
        shown.add(Text(f"and {len(bridge.ports) - _PORTS} more ports", style=_DIM))


def _link_facts(link: HostLink) -> list[tuple[str, str]]:
    return [(f"mtu {link.mtu}", _VALUE), _state(link)]


def _state(link: HostLink | GuestNic) -> tuple[str, str]:
    if not link.is_up:
        return ("down", _BAD)
    return ("up", _GOOD) if link.has_carrier else ("up, no carrier", "yellow")


def _kind(link: HostLink | None) -> str:
    return "device" if link is None else _KINDS.get(link.kind, link.kind)


def _spaced(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [part for fact in facts for part in (_SEPARATOR, fact)]
