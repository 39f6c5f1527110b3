"""The output of kata-network show with --format dot, and with --format svg, which Graphviz renders."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from kata_runtime.cli.streams import one_line
from kata_runtime.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.network.host_devices import Bridge, HostLink, HostSide
    from kata_runtime.network.route_table import ListedRoute
    from kata_runtime.network.topology import GuestNic, NicView, Topology

_DRAWING_SECONDS = 60
_HEAD = """\
digraph "kata-network" {
  rankdir=LR; nodesep=0.25; ranksep=0.7; pad=0.3; bgcolor=white;
  fontname="Helvetica"; fontsize=12;
  node [fontname="Helvetica", fontsize=11, shape=box, style="rounded,filled", color="#5b6b7b", fillcolor="#f4f6f8"];
  edge [arrowhead=none, color="#5b6b7b", fontname="Helvetica", fontsize=9];
"""
_NIC, _BRIDGE, _BROKEN, _PORT = "#d9ecff", "#e2f5e1", "#ffd9d6", "#ffffff"


def dot(containers: Sequence[Topology]) -> str:
    """The containers and the host devices that they are connected to as a graph in DOT, Graphviz's language."""
    graph = _Graph()
    for number, shown in enumerate(containers):
        graph.add_container(number, shown)
    graph.add_other_ports()
    return "".join([_HEAD, *(f"  {line}\n" for line in graph.lines), "}\n"])


def svg(source: str) -> str:
    """Render a graph as SVG by dot(1).

    :raise HostError: Graphviz is not installed, or fails.
    """
    program = shutil.which("dot")
    if program is None:
        raise HostError("--format svg needs Graphviz, which is not installed", hint="apt-get install graphviz")
    try:
        done = subprocess.run(
            [program, "-Tsvg"], input=source.encode(), capture_output=True, timeout=_DRAWING_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"Graphviz cannot be run: {error}") from error
    if done.returncode != 0:
        raise HostError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


class _Graph:
    """Lines of the graph; a device or bridge that several NICs are connected to is one node."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._nodes: dict[tuple[str, ...], str] = {}
        self._edges: set[tuple[str, str]] = set()
        self._other_ports: list[tuple[str, HostLink, str]] = []

    def add_container(self, number: int, shown: Topology) -> None:
        record = shown.record
        title = f"container {record.container_id[:24]}"
        self.lines.append(f'subgraph cluster_{number} {{ label={_quoted(title)}; style=rounded; color="#9aa7b4";')
        names = [self._nic(nic, number, place) for place, nic in enumerate(shown.nics)]
        if shown.routes:
            self._node(("routes", str(number)), ["routes", *map(_route, shown.routes)], "#fffbe6", shape="note")
        elif not names:
            self._node(("none", str(number)), ["no NICs"], _PORT)
        self.lines.append("}")
        for name, nic in zip(names, shown.nics, strict=True):
            self._connect(name, nic)

    def _nic(self, nic: NicView, number: int, place: int) -> str:
        guest = nic.guest
        if guest is None:
            return self._node(("nic", f"{number}.{place}"), [nic.record.name, "missing in the guest"], _BROKEN)
        lines = [guest.name, str(guest.mac), *map(str, nic.addresses), f"mtu {guest.mtu}, {_state(guest)}"]
        if nic.rates is not None:
            lines.append(f"{_speed(nic.rates.received_bytes)} in, {_speed(nic.rates.sent_bytes)} out")
        return self._node(("nic", f"{number}.{place}"), lines, _NIC if guest.is_up else _BROKEN)

    def _connect(self, name: str, nic: NicView) -> None:
        host = nic.host
        if nic.record.vhost_user_socket:
            where = self._node(
                ("socket", nic.record.vhost_user_socket),
                [nic.record.device, "vhost-user", nic.record.vhost_user_socket],
                _PORT,
            )
        elif host.device is None:
            lines = [nic.record.device, host.missing]
            where = self._node(("device", host.namespace, nic.record.device), lines, _BROKEN)
        else:
            where = self._device(host.namespace, host.device)
        self._edge(name, where)
        if host.peer is not None:
            peer = self._device("", host.peer)
            self._edge(where, peer)
            where = peer
        if host.bridge is not None:
            self._bridge(where, host.bridge, host)

    def _bridge(self, where: str, bridge: Bridge, host: HostSide) -> None:
        namespace = host.namespace if host.peer is None else ""
        kind = f"Open vSwitch, {bridge.datapath}" if bridge.datapath else bridge.kind
        lines = [bridge.name, kind, *([] if bridge.is_up else ["down"])]
        name = self._node(("bridge", namespace, bridge.name), lines, _BRIDGE if bridge.is_up else _BROKEN)
        self._edge(where, name)
        self._other_ports += [(namespace, port, name) for port in bridge.ports]

    def add_other_ports(self) -> None:
        """Add the other ports of the bridges; those of containers that were added are connected already."""
        for namespace, port, bridge in self._other_ports:
            self._edge(self._device(namespace, port), bridge, reverse=True)

    def _device(self, namespace: str, link: HostLink) -> str:
        kind = {"tun": "TAP", "": "device"}.get(link.kind, link.kind)
        lines = [link.name, f"{kind}, {_state(link)}", *([f"in {namespace}"] if namespace else [])]
        return self._node(("device", namespace, link.name), lines, _PORT if link.is_up else _BROKEN)

    def _node(self, key: tuple[str, ...], label: Sequence[str], colour: str, shape: str = "box") -> str:
        if key not in self._nodes:
            self._nodes[key] = f"n{len(self._nodes)}"
            style = "filled" if shape == "note" else "rounded,filled"
            self.lines.append(
                f"{self._nodes[key]} [label={_quoted(*label)}, fillcolor={_quoted(colour)}, "
                f"shape={shape}, style={_quoted(style)}];"
            )
        return self._nodes[key]

    def _edge(self, one: str, other: str, *, reverse: bool = False) -> None:
        pair = (min(one, other), max(one, other))
        if pair not in self._edges:
            self._edges.add(pair)
            # Ports to other networks are drawn to the right of their bridge.
            self.lines.append(f"{other} -> {one};" if reverse else f"{one} -> {other};")


def _route(route: ListedRoute) -> str:
    via = f" via {route.gateway}" if route.gateway else ""
    return f"{route.dest}{via} dev {route.device}"


def _state(link: HostLink | GuestNic) -> str:
    return "up" if link.is_up else "down"


def _speed(rate: float) -> str:
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)):
        if rate >= size:
            return f"{rate / size:.1f} {unit}"
    return f"{rate:.0f} B/s"


def _quoted(*lines: str) -> str:
    r"""A quoted string of DOT, with ``\n`` between lines; untrusted text is escaped."""
    escaped = (one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
