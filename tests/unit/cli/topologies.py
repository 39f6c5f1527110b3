"""A container's network as fixed data, with a guest that chose hostile names."""

from __future__ import annotations

from tests.unit.typed_addresses import interface_address, listed_route, mac

from kata_runtime.netlink.link_details import Counters
from kata_runtime.network.host_devices import Bridge, HostLink, HostSide
from kata_runtime.network.topology import GuestNic, NicView, Rates, Topology
from kata_runtime.sandbox.record import EndpointKind, NicRecord, Record

_HERE = interface_address("172.16.0.3/16")
_FOUND = (_HERE, interface_address("fd00::3/64"), interface_address("fe80::1/64"))
_POD = interface_address("10.88.0.2/16")
_WEB = NicRecord("eth-test", "tap_test", mac("02:42:20:6e:03:01"), 1500, (_HERE,), 0)
_FAST = NicRecord("fast", "vhu0", mac("02:42:20:6e:03:02"), 9000, (), 1, 4, "/run/vhu0.sock", EndpointKind.VHOST_USER)
_CARRIED = NicRecord(
    "eth0", "eth0", mac("02:42:20:6e:03:03"), 1450, (_POD,), 2,
    kind=EndpointKind.REDIRECT, namespace="4:5", carried_from="/run/netns/pod", interface=2,
)  # fmt: skip
_GONE = NicRecord("lost", "tap_gone", mac("02:42:20:6e:03:04"), 1500, (), 8)
_TAP = HostLink("tap_test", "tun", 1500, True, True)
_BRIDGE = Bridge(
    "br0", "bridge", True, (HostLink("eno1", "", 1500, True, False), HostLink("veth1", "veth", 1500, False, False))
)
HOSTILE = 'eth\x1b[31m"\\n]\n<b>'

TOPOLOGY = Topology(
    Record("web", pid=4711, accelerator="kvm", vcpus=2),
    (
        NicView(
            _WEB, "01.0/00",
            GuestNic(
                "eth-test", mac("02:42:20:6e:03:01"), 1500, True, True, _FOUND,
                Counters(10, 20, 15_000, 2_500_000, 0, 3, 7, 0),
            ),
            HostSide(_TAP, bridge=_BRIDGE),
            Rates(1200.0, 2_400_000.0, 10.0, 20.0),
        ),
        NicView(
            _FAST, "01.1/00",
            GuestNic(HOSTILE, mac("02:42:20:6e:03:02"), 9000, True, False, (), Counters()),
            HostSide(None, bridge=Bridge("br-int", "openvswitch", True, (), "netdev", 42, "could not open")),
        ),
        NicView(
            _CARRIED, "01.2/00",
            GuestNic("eth0", mac("02:42:20:6e:03:03"), 1450, False, False, (_POD,), Counters()),
            HostSide(
                HostLink("eth0", "veth", 1450, True, True),
                "/run/netns/pod",
                HostLink("veth9", "veth", 1450, True, True),
                Bridge("cni0", "bridge", False, ()),
            ),
        ),
        NicView(_GONE, "02.0/00", None, HostSide(None, missing="there is no interface 'tap_gone' any more")),
    ),
    (listed_route("default", "172.16.0.1", "eth-test"), listed_route("172.16.0.0/16", "", HOSTILE)),
)  # fmt: skip
