"""MTUs that are too large for the way of a packet."""

from __future__ import annotations

from typing import Any

import pytest

from kata_runtime.network.clients.ovsdb import Bridge
from kata_runtime.network.ports.path_mtu import bridge_note, tunnel_note


@pytest.mark.parametrize(
    ("least", "mtu", "note"),
    [
        (0, 9000, ""),
        (1500, 1500, ""),
        (1500, 1501, "mtu 1501 is larger than the 1500 of another port of bridge 'br0': larger packets to it are lost"),
    ],
)
def test_a_bridge(least: int, mtu: int, note: str) -> None:
    """What the smallest other port does not take is reported."""
    assert bridge_note(Bridge("br0", "netdev", least), mtu) == note


_TOO_LARGE = (
    "mtu {mtu} is larger than the tunnels of this host carry: {most}, as interface 'eth0' has 1500 and they take "
    "{taken}; larger packets to other hosts are lost"
)


@pytest.mark.parametrize(
    ("kind", "local", "most", "taken"),
    [
        ("geneve", "172.16.0.3", 1442, 58),
        ("vxlan,geneve", "172.16.0.3", 1442, 58),
        ("vxlan", "172.16.0.3", 1450, 50),
        ("geneve", "fd00::3", 1422, 78),
    ],
)
def test_tunnels(session: Any, kind: str, local: str, most: int, taken: int) -> None:
    """The underlay's MTU less what tunnels take fits, a byte more is reported."""
    ids = {"ovn-encap-type": kind, "ovn-encap-ip": local}
    assert tunnel_note(session.transport, ids, most) == ""
    assert tunnel_note(session.transport, ids, most + 1) == _TOO_LARGE.format(mtu=most + 1, most=most, taken=taken)


@pytest.mark.parametrize(
    "ids",
    [{}, {"ovn-encap-type": "geneve", "ovn-encap-ip": "192.0.2.1"}, {"ovn-encap-type": "geneve", "ovn-encap-ip": "x"}],
)
def test_nothing_is_known(session: Any, ids: dict[str, str]) -> None:
    """Without tunnels, or with an address of another network namespace, nothing is said."""
    assert tunnel_note(session.transport, ids, 9000) == ""
