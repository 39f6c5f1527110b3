"""Networks between the hosts: bridges in a namespace of their own, never in this machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.namespace import HostNamespace

# Outer IPv4 and UDP headers, Geneve's with OVN's option, and the inner Ethernet header: RFC 8926, ovn-architecture(7).
GENEVE_BYTES = 58
# For ethtool -K: Open vSwitch in user space reads and writes frames unchanged, and there is no hardware that
# would add the checksums and segments that a kernel leaves to it.
OFFLOADS_OFF = ("tx", "off", "tso", "off", "gso", "off", "gro", "off")


class Underlay:
    """A bridge that hosts are connected to; with ``mtu`` bytes it carries guests' packets of ``GENEVE_BYTES`` less.

    The ``number``-th host has the address ``subnet``.``number``, and the namespace of the bridge can have one, too.
    """

    def __init__(self, namespace: HostNamespace, bridge: str, subnet: str, mtu: int) -> None:
        self.namespace = namespace
        self.mtu = mtu
        self._bridge = bridge
        self._subnet = subnet
        namespace.ip(f"link add {bridge} mtu {mtu} type bridge")
        namespace.ip(f"link set {bridge} up")

    @property
    def guest_mtu(self) -> int:
        """The largest MTU of a guest whose packets fit."""
        return self.mtu - GENEVE_BYTES

    def connect(self, host: HostNamespace, number: int, uplink: str) -> str:
        """Give ``host`` an interface ``uplink`` to the bridge; the address that the host shall have."""
        port = f"{self._bridge}{number}"
        peer = f"peer name {uplink} mtu {self.mtu} netns {host.name}"
        self.namespace.ip(f"link add {port} mtu {self.mtu} master {self._bridge} type veth {peer}")
        self.namespace.ip(f"link set {port} up")
        for namespace, end in ((self.namespace, port), (host, uplink)):
            namespace.run("ethtool", "-K", end, *OFFLOADS_OFF)
        host.ip(f"link set {uplink} up")
        return self.address(number)

    def address(self, number: int) -> str:
        """The address of a number."""
        return f"{self._subnet}.{number}"

    def take_address(self, number: int) -> str:
        """Give the bridge's namespace itself an address, which is returned."""
        self.namespace.ip(f"address add {self.address(number)}/24 dev {self._bridge}")
        return self.address(number)
