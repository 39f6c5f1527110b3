"""The host's side of a container's NICs: devices, bridges, veth peers, ports of Open vSwitch."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import ExitStack, suppress
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import addresses_of, dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link_details import detailed_links_of, dump_detailed_links
from kata_runtime.netlink.transport import Family
from kata_runtime.network.namespace import Namespace, OwnNamespace
from kata_runtime.sandbox.record import EndpointKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from kata_runtime.netlink.link_details import DetailedLink
    from kata_runtime.network.open_vswitch import SwitchPort
    from kata_runtime.sandbox.record import NicRecord

_OPEN_VSWITCH = "openvswitch"  # also its IFLA_INFO_KIND in the kernel
_NAMED_NAMESPACES = "/run/netns"  # ip-netns(8)


class HostLink(NamedTuple):
    """An interface of this host; ``kind`` is IFLA_INFO_KIND ("tun", "veth"), empty for hardware."""

    name: str
    kind: str
    mtu: int
    is_up: bool
    has_carrier: bool


class Bridge(NamedTuple):
    """The master of a device; ``kind`` is "bridge", "openvswitch", "bond" or another kind of master.

    ``is_up`` is whether it forwards packets. Open vSwitch does so whatever the state of the interfaces ``br-int`` and
    ``ovs-system``, which are usually down.

    ``datapath``, ``tag`` and ``error`` (why the port does not work) come from Open vSwitch.
    """

    name: str
    kind: str
    is_up: bool
    ports: tuple[HostLink, ...]
    datapath: str = ""
    tag: int = 0
    error: str = ""


class HostSide(NamedTuple):
    """The host's side of a NIC; ``device`` is None for a vhost-user NIC, or where it cannot be found.

    ``namespace`` is the path of the device's network namespace, empty for the command's own. ``peer`` is the other end
    of a veth. ``missing`` is the reason why nothing is known of the device. ``addressed`` names those of device and
    bridge that have an IP address of their own, by which the host itself can be reached.
    """

    device: HostLink | None
    namespace: str = ""
    peer: HostLink | None = None
    bridge: Bridge | None = None
    missing: str = ""
    addressed: tuple[str, ...] = ()


class _Links:
    """A cache of the interfaces of network namespaces, each read once."""

    def __init__(self) -> None:
        with OwnNamespace() as own:
            self._own = own.identity
        self._read: dict[str, Sequence[DetailedLink]] = {}
        self._addressed: dict[str, frozenset[int]] = {}

    def path_of(self, identity: str, recorded: str) -> str | None:
        """The path to enter a namespace by: empty for the command's own, None where it is bound to no file."""
        if identity == self._own:
            return ""
        candidates = [recorded] if recorded else []
        with suppress(FileNotFoundError):
            candidates += [os.path.join(_NAMED_NAMESPACES, name) for name in sorted(os.listdir(_NAMED_NAMESPACES))]
        for path in candidates:
            try:
                found = os.stat(path)
            except OSError:
                continue
            if f"{found.st_dev}:{found.st_ino}" == identity:
                return path
        return None

    def of(self, path: str) -> Sequence[DetailedLink]:
        """The interfaces of the namespace at ``path``.

        :raise HostError: it cannot be entered or read.
        """
        if path not in self._read:
            with ExitStack() as opened:
                if path:
                    transport = opened.enter_context(opened.enter_context(Namespace(path)).transport())
                else:
                    from kata_runtime.netlink.local import LocalTransport

                    transport = opened.enter_context(LocalTransport())
                links, addresses = call_each(transport, Family.ROUTE, [dump_detailed_links(), dump_addresses()])
            self._read[path] = detailed_links_of(links)
            # Link-local ones of IPv6 do not count: the kernel gives every interface one.
            self._addressed[path] = frozenset(
                each.index for each in addresses_of(addresses) if not each.value.address.is_link_local
            )
        return self._read[path]

    def addressed(self, path: str) -> Collection[str]:
        """The names of the interfaces in ``path`` that have an address. :raise HostError: as ``of``."""
        links = self.of(path)
        return {each.link.name for each in links if each.link.index in self._addressed[path]}


def host_sides(nics: Iterable[NicRecord], ports: Iterable[SwitchPort]) -> Mapping[str, HostSide]:
    """The host's side of each NIC, by the NIC's name.

    :raise HostError, DeadlineError: this host's kernel does not answer.
    """
    links = _Links()
    listed = list(ports)
    return {nic.name: _side(nic, links, listed) for nic in nics}


def _side(nic: NicRecord, links: _Links, ports: Sequence[SwitchPort]) -> HostSide:
    if nic.kind == EndpointKind.VHOST_USER:
        port = next((port for port in ports if port.socket == nic.vhost_user_socket), None)
        return HostSide(None, bridge=None if port is None else _switch(port, ports))
    path = links.path_of(nic.namespace, nic.carried_from)
    if path is None:
        return HostSide(None, missing="its network namespace has no name on this host")
    try:
        there = links.of(path)
    except HostError as error:
        return HostSide(None, path, missing=str(error))
    found = next((each for each in there if each.link.name == nic.device), None)
    if found is None:
        return HostSide(None, path, missing=f"there is no interface {nic.device!a} any more")
    peer, peer_path = _peer(found, path, links)
    at_bridge, at_path = (found, path) if found.link.master or peer is None else (peer, peer_path)
    bridge = _bridge(at_bridge, links.of(at_path), ports if not at_path else ())
    names = {found.link.name, *([] if bridge is None else [bridge.name])}
    return HostSide(
        host_link(found),
        path,
        None if peer is None else host_link(peer),
        bridge,
        addressed=tuple(sorted(names & {*links.addressed(path), *links.addressed(at_path)})),
    )


def host_link(found: DetailedLink) -> HostLink:
    """An interface in the form that users see."""
    link = found.link
    return HostLink(link.name, link.kind, link.mtu, link.is_up, link.carrier)


def _peer(found: DetailedLink, path: str, links: _Links) -> tuple[DetailedLink | None, str]:
    """The other end of a veth, if it is in the same namespace or in the command's, with its namespace's path."""
    if found.link.kind != "veth":
        return None, path
    for where in dict.fromkeys((path if found.link.lower else "", "", path)):
        for other in links.of(where):
            pair = (other.link.index, other.peer) == (found.peer, found.link.index)
            if pair and other.link.kind == "veth" and (where, other.link.index) != (path, found.link.index):
                return other, where
    return None, path


def _bridge(found: DetailedLink, there: Sequence[DetailedLink], ports: Sequence[SwitchPort]) -> Bridge | None:
    """The bridge or other master that an interface is a port of, with its other ports."""
    for port in ports:
        if port.name == found.link.name:
            return _switch(port, ports)
    master = next((each for each in there if each.link.index == found.link.master), None)
    if master is None:
        return None
    others = [
        host_link(each)
        for each in there
        if each.link.master == master.link.index and each.link.index != found.link.index
    ]
    is_up = master.link.is_up or master.link.kind == _OPEN_VSWITCH
    return Bridge(master.link.name, master.link.kind, is_up, tuple(sorted(others)))


def _switch(port: SwitchPort, ports: Sequence[SwitchPort]) -> Bridge:
    others = sorted(
        HostLink(other.name, other.kind, 0, not other.error, other.link == "up")
        for other in ports
        if other.bridge == port.bridge and other.name not in (port.name, port.bridge)
    )
    return Bridge(port.bridge, _OPEN_VSWITCH, True, tuple(others), port.datapath, port.tag, port.error)
