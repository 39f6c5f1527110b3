"""How large a packet may be that a port sends, as far as this host knows."""

from __future__ import annotations

from kata_runtime.netlink.address import addresses_of, dump_addresses, packed_address
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import dump_links, links_of
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_runtime.netlink.transport import Transport
    from kata_runtime.network.ports.ovsdb import Bridge

# Outer Ethernet is not part of an MTU, the inner one is: 14, UDP 8, Geneve 8 with the 8 of OVN's option, or VXLAN 8.
_OVERHEAD = {"geneve": 38, "vxlan": 30}
_IP_HEADER = {4: 20, 16: 40}


def bridge_note(bridge: Bridge, mtu: int) -> str:
    """What is wrong with a NIC of this ``mtu`` in a bridge that forwards by itself; empty when nothing is."""
    if not bridge.least_mtu or mtu <= bridge.least_mtu:
        return ""
    return (
        f"mtu {mtu} is larger than the {bridge.least_mtu} of another port of bridge {bridge.name!a}: "
        "larger packets to it are lost"
    )


def tunnel_note(transport: Transport, external_ids: Mapping[str, str], mtu: int) -> str:
    """What is wrong with a NIC of this ``mtu`` whose packets OVN carries to other hosts; empty when nothing is.

    Networks that OVN does not carry in tunnels are not told from others here: so this is nothing to refuse for.
    """
    kinds = [kind.strip() for kind in external_ids.get("ovn-encap-type", "").split(",")]
    overhead = max((_OVERHEAD.get(kind, 0) for kind in kinds), default=0)
    local = packed_address(external_ids.get("ovn-encap-ip", "").partition(",")[0])
    if not overhead or local is None:
        return ""
    links, addresses = call_each(transport, Family.ROUTE, [dump_links(), dump_addresses()])
    holders = {address.index for address in addresses_of(addresses) if address.address == local}
    for link in links_of(links):
        if link.index in holders:
            taken = overhead + _IP_HEADER[len(local)]
            if mtu > link.mtu - taken:
                return (
                    f"mtu {mtu} is larger than the tunnels of this host carry: {link.mtu - taken}, as interface "
                    f"{link.name!a} has {link.mtu} and they take {taken}; larger packets to other hosts are lost"
                )
    return ""
