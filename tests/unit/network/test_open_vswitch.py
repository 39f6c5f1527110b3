"""Open vSwitch's tables as ovs-vsctl 3.1 prints them."""

from __future__ import annotations

import pytest

from kata_runtime.errors import HostError
from kata_runtime.network.open_vswitch import SwitchPort, ports_in

_BRIDGES = """{"data":[["br-int","netdev",["set",[["uuid","0851"],["uuid","4e03"],["uuid","aa90"]]]],
["br-ex","",["uuid","7777"]]],"headings":["name","datapath_type","ports"]}"""
_PORTS = """{"data":[[["uuid","0851"],["set",[]],["uuid","0aae"]],[["uuid","4e03"],42,["uuid","918e"]],
[["uuid","7777"],["set",[]],["uuid","8888"]],
[["uuid","aa90"],["set",[]],["uuid","56b1"]]],"headings":["_uuid","tag","interfaces"]}"""
_INTERFACES = """{"data":[
[["uuid","56b1"],"vhu0","dpdkvhostuserclient",["map",[["vhost-server-path","/run/vhu0.sock"]]],"down",["set",[]]],
[["uuid","918e"],"tap0","",["map",[]],["set",[]],"could not open network device tap0 (No such device)"],
[["uuid","8888"],"eth0","",["map",[]],"up",["set",[]]],
[["uuid","0aae"],"br-int","internal",["map",[]],["set",[]],["set",[]]]],
"headings":["_uuid","name","type","options","link_state","error"]}"""


def test_ports() -> None:
    """Every port has its bridge, datapath, VLAN, socket, link and error."""
    assert ports_in(_BRIDGES, _PORTS, _INTERFACES) == [
        SwitchPort("br-int", "netdev", "br-int", "internal"),
        SwitchPort(
            "br-int", "netdev", "tap0", "system", tag=42, error="could not open network device tap0 (No such device)"
        ),
        SwitchPort("br-int", "netdev", "vhu0", "dpdkvhostuserclient", socket="/run/vhu0.sock", link="down"),
        SwitchPort("br-ex", "system", "eth0", "system", link="up"),
    ]


@pytest.mark.parametrize("table", ["", "{}", "[]", '{"data":[[1]],"headings":["name"]}', '{"data":1,"headings":[]}'])
def test_no_table(table: str) -> None:
    """Anything else than its tables is an error in one line."""
    with pytest.raises(HostError, match=r"^ovs-vsctl prints what is no table of its database: "):
        ports_in(table, _PORTS, _INTERFACES)
