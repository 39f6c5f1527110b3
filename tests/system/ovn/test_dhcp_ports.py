"""Ports whose address comes from OVN's DHCP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.logical_switch import LogicalSwitch
    from tests.system.ovn.conftest import Side


def test_address_by_dhcp(sides: list[Side], network: LogicalSwitch) -> None:
    """The NIC has the address, router and MTU that OVN has for the port, and reaches a port on the other host."""
    first, second = sides
    here, there = network.add_ports("dhcp-1", "dhcp-2")
    with first.attached(here, network.mtu, dhcp=True), second.attached(there, network.mtu):
        listed = json.loads(first.sandbox.network("list-ifaces").stdout)
        routes = json.loads(first.sandbox.network("list-routes").stdout)
        reached = first.sandbox.guest("ping", "-n", "-c", "1", "-w", "10", there.address).returncode
    assert listed == [{"name": "eth0", "mac": here.mac, "ip": [f"{here.address}/16"], "mtu": network.mtu}]
    assert routes == [
        {"dest": "default", "gateway": network.gateway, "device": "eth0"},
        {"dest": "10.7.0.0/16", "gateway": "", "device": "eth0"},
    ]
    assert reached == 0
