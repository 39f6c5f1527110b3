"""Checks of a port's MTU against its bridge and this host's tunnels."""

from __future__ import annotations

from kata_runtime.address_types import IpAddress
from kata_runtime.netlink.address import addresses_of, dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import dump_links, links_of
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.netlink.transport import Transport
    from kata_runtime.network.clients.ovsdb import Bridge

# Encapsulation without the outer IP header. An MTU excludes the outer Ethernet header, but not the inner one: 14 bytes,
# with UDP 8, and Geneve 8 with OVN's option 8, or VXLAN 8.
_OVERHEAD = {"geneve": 38, "vxlan": 30}
_IP_HEADER = {4: 20, 16: 40}


def bridge_note(bridge: Bridge, mtu: int) -> str:
    """A note if ``mtu`` is too large for other ports of a bridge without OVN; empty otherwise."""
    if not bridge.least_mtu or mtu <= bridge.least_mtu:
        return ""
    return (
        f"mtu {mtu} is larger than the {bridge.least_mtu} of another port of bridge {bridge.name!a}: "
        "larger packets to it are lost"
    )


def tunnel_note(transport: Transport, external_ids: Mapping[str, str], mtu: int) -> str:
    """A note if ``mtu`` is too large for OVN's tunnels to other hosts; empty otherwise.

    It is no error, since this host cannot tell whether the port's network uses tunnels at all.
    """
    kinds = [kind.strip() for kind in external_ids.get("ovn-encap-type", "").split(",")]
    overhead = max((_OVERHEAD.get(kind, 0) for kind in kinds), default=0)
    local = IpAddress.parse(external_ids.get("ovn-encap-ip", "").partition(",")[0])
    if not overhead or local is None:
        return ""
    links, addresses = call_each(transport, Family.ROUTE, [dump_links(), dump_addresses()])
    holders = {address.index for address in addresses_of(addresses) if address.value.address == local}
    for link in links_of(links):
        if link.index in holders:
            taken = overhead + _IP_HEADER[len(local)]
            if mtu > link.mtu - taken:
                return (
                    f"mtu {mtu} is larger than the tunnels of this host carry: {link.mtu - taken}, as interface "
                    f"{link.name!a} has {link.mtu} and they take {taken}; larger packets to other hosts are lost"
                )
    return ""
