"""The network between the hosts: a bridge in a namespace of its own, never in this machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.namespace import HostNamespace

_BRIDGE = "fabric"
# Outer IPv4 and UDP headers, Geneve's with OVN's option, and the inner Ethernet header: RFC 8926, ovn-architecture(7).
GENEVE_BYTES = 58
# For ethtool -K: Open vSwitch in user space reads and writes frames as they are, and no hardware is behind it that
# would make the checksums and segments that a kernel leaves out.
OFFLOADS_OFF = ("tx", "off", "tso", "off", "gso", "off", "gro", "off")


class Underlay:
    """A bridge that hosts are connected to; its ``mtu`` carries guests' packets of ``GENEVE_BYTES`` less."""

    def __init__(self, namespace: HostNamespace, mtu: int) -> None:
        self.namespace = namespace
        self.mtu = mtu
        namespace.ip(f"link add {_BRIDGE} mtu {mtu} type bridge")
        namespace.ip(f"link set {_BRIDGE} up")

    @property
    def guest_mtu(self) -> int:
        """The largest MTU of a guest whose packets fit."""
        return self.mtu - GENEVE_BYTES

    def connect(self, host: HostNamespace, number: int, uplink: str) -> str:
        """Give ``host`` an interface ``uplink`` to the bridge; the address that the host shall have."""
        port = f"host{number}"
        peer = f"peer name {uplink} mtu {self.mtu} netns {host.name}"
        self.namespace.ip(f"link add {port} mtu {self.mtu} master {_BRIDGE} type veth {peer}")
        self.namespace.ip(f"link set {port} up")
        for namespace, end in ((self.namespace, port), (host, uplink)):
            namespace.run("ethtool", "-K", end, *OFFLOADS_OFF)
        host.ip(f"link set {uplink} up")
        return f"192.0.2.{number}"
