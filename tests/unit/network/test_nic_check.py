"""What can be wrong with a NIC: each finding of fixed data, whole, with its remedy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.unit.typed_addresses import interface_address, listed_route, mac

from kata_runtime.errors import GuestError
from kata_runtime.guest.short_command import Completed
from kata_runtime.netlink.link_details import Counters
from kata_runtime.network.host_devices import Bridge, HostLink, HostSide
from kata_runtime.network.nic_check import (
    NicFinding,
    QemuSide,
    Verdict,
    connected_backends,
    host_findings,
    probe_findings,
)
from kata_runtime.network.topology import GuestNic, NicView
from kata_runtime.sandbox.record import EndpointKind, NicRecord, PortRecord
from kata_runtime.vmm.tap_device import held_taps

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAP = HostLink("tap0", "tun", 1500, True, True)
_PORT = HostLink("veth0", "veth", 1500, True, True)
_BRIDGE = Bridge("br0", "bridge", True, (_PORT,))
_RECORD = NicRecord("eth1", "tap0", mac("02:42:20:6e:03:01"), 1500, (interface_address("10.0.0.2/24"),), 3)
_ADDRESSES = (interface_address("10.0.0.2/24"), interface_address("fd00::2/64"))
_GUEST = GuestNic("eth1", mac("02:42:20:6e:03:01"), 1500, True, True, _ADDRESSES, Counters())
_VIEW = NicView(_RECORD, "01.3/00", _GUEST, HostSide(_TAP, bridge=_BRIDGE))
_QEMU = QemuSide({"tap0"}, ())


def _found(view: NicView, qemu: QemuSide = _QEMU) -> list[tuple[str, str, str, str]]:
    """The findings that are not well."""
    return [
        (each.check, str(each.verdict), each.value, each.remedy)
        for each in host_findings(view, qemu)
        if each.verdict is not Verdict.OK
    ]


def test_all_is_well() -> None:
    """A NIC whose parts are all there has a finding for each of them, without a remedy."""
    assert list(host_findings(_VIEW, _QEMU)) == [
        NicFinding("eth1", "device", Verdict.OK, "tap0 is up"),
        NicFinding("eth1", "QEMU", Verdict.OK, "holds tap0"),
        NicFinding("eth1", "bridge", Verdict.OK, "port of br0"),
        NicFinding("eth1", "guest", Verdict.OK, "eth1 is up"),
        NicFinding("eth1", "mtu", Verdict.OK, "1500"),
    ]


_AGAIN = "delete and add the NIC again: del-iface, add-iface with the device tap0"
_PORT_AGAIN = "delete and add the port again: del-port, add-port"
_PORT_RECORD = _RECORD._replace(kind=EndpointKind.BRIDGE, port=PortRecord("tap0", "br0"))
_CASES = {
    "device-gone": (
        _VIEW._replace(host=HostSide(None, missing="there is no interface 'tap0' any more")),
        [
            (
                "device", "broken", "there is no interface 'tap0' any more",
                f"create it with 'ip tuntap add tap0 mode tap' and {_AGAIN}",
            )
        ],
    ),
    "elsewhere": (
        _VIEW._replace(host=HostSide(None, missing="its network namespace has no name on this host")),
        [
            (
                "device", "broken", "its network namespace has no name on this host",
                "run the check in the network namespace of the device, with 'ip netns exec'",
            )
        ],
    ),
    "device-down": (
        _VIEW._replace(host=HostSide(_TAP._replace(is_up=False), bridge=_BRIDGE)),
        [("device", "broken", "tap0 is down", "ip link set tap0 up")],
    ),
    "no-bridge": (
        _VIEW._replace(host=HostSide(_TAP)),
        [
            (
                "bridge", "broken", "tap0 is a port of no bridge, and has no address",
                "ip link set tap0 master BRIDGE, or give it an address to route from",
            )
        ],
    ),
    "port-device-gone": (
        _VIEW._replace(record=_PORT_RECORD, host=HostSide(None, missing="there is no interface 'tap0' any more")),
        [("device", "broken", "there is no interface 'tap0' any more", _PORT_AGAIN)],
    ),
    "no-port": (
        _VIEW._replace(record=_PORT_RECORD, host=HostSide(_TAP, addressed=("tap0",))),
        [("bridge", "broken", "tap0 is no port of br0", _PORT_AGAIN)],
    ),
    "no-port-of-open-vswitch": (
        _VIEW._replace(
            record=_PORT_RECORD._replace(kind=EndpointKind.OVS, port=PortRecord("web-1", "br-int", "unix:/a")),
            host=HostSide(_TAP),
        ),
        [
            (
                "bridge", "broken", "tap0 is no port of br-int, or Open vSwitch does not answer: see ovs-vsctl show",
                _PORT_AGAIN,
            )
        ],
    ),
    "routed": (_VIEW._replace(host=HostSide(_TAP, addressed=("tap0",))), []),
    "bridge-down": (
        _VIEW._replace(host=HostSide(_TAP, bridge=_BRIDGE._replace(is_up=False))),
        [("bridge", "broken", "port of br0, which is down", "ip link set br0 up")],
    ),
    "lonely-bridge": (
        _VIEW._replace(host=HostSide(_TAP, bridge=_BRIDGE._replace(ports=()))),
        [
            (
                "bridge", "warning", "port of br0, which has no other port and no address",
                "add a port: ip link set DEVICE master br0",
            )
        ],
    ),
    "bridge-with-address": (
        _VIEW._replace(host=HostSide(_TAP, bridge=_BRIDGE._replace(ports=()), addressed=("br0",))),
        [],
    ),
    "switch-error": (
        _VIEW._replace(host=HostSide(_TAP, bridge=Bridge("ovs", "openvswitch", True, (), "system", 0, "no such"))),
        [("bridge", "broken", "port of ovs: no such", "see ovs-vsctl show")],
    ),
    "offload-trap": (
        _VIEW._replace(host=HostSide(_TAP, bridge=Bridge("ovs", "openvswitch", True, (), "netdev"))),
        [
            (
                "offload", "broken",
                "left to the host, which ovs (datapath netdev) does not do: TCP does not work",
                'delete the NIC and add it again with "offload":false, or use a vhost-user port',
            )
        ],
    ),
    "offload-off": (
        _VIEW._replace(
            record=_RECORD._replace(offload=False),
            host=HostSide(_TAP, bridge=Bridge("ovs", "openvswitch", True, (), "netdev")),
        ),
        [],
    ),
    "guest-without": (
        _VIEW._replace(guest=None),
        [("guest", "broken", "the guest has no such NIC", "del-iface, and add it again")],
    ),
    "guest-down": (
        _VIEW._replace(guest=_GUEST._replace(is_up=False)),
        [
            (
                "guest", "broken", "eth1 is down in the guest",
                "have the container set it up: ip link set eth1 up",
            )
        ],
    ),
    "guest-carrier": (
        _VIEW._replace(guest=_GUEST._replace(has_carrier=False)),
        [("guest", "broken", "eth1 has no carrier", "look at the device and QEMU above")],
    ),
    "narrow-device": (
        _VIEW._replace(host=HostSide(_TAP._replace(mtu=1400), bridge=_BRIDGE)),
        [
            (
                "mtu", "broken", "1500 in the guest, 1400 on tap0",
                "ip link set tap0 mtu 1500, or add the NIC with mtu 1400",
            )
        ],
    ),
    "narrow-port": (
        _VIEW._replace(host=HostSide(_TAP, bridge=_BRIDGE._replace(ports=(_PORT._replace(mtu=1450),)))),
        [
            (
                "mtu", "warning", "1500 in the guest, 1450 on the port veth0",
                "ip link set veth0 mtu 1500, or add the NIC with mtu 1450",
            )
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES)
def test_what_is_wrong(case: str) -> None:
    """Each thing that can be wrong is one finding with its remedy, and nothing else is blamed."""
    view, expected = _CASES[case]
    assert _found(view) == expected


def test_not_held() -> None:
    """A TAP that QEMU does not hold is broken; where its descriptors cannot be read nothing is claimed."""
    assert _found(_VIEW, QemuSide({"tap9"}, ())) == [("QEMU", "broken", "does not hold tap0", _AGAIN)]
    assert _found(_VIEW, QemuSide(None, ())) == []
    redirected = _VIEW._replace(record=_RECORD._replace(kind=EndpointKind.REDIRECT))
    assert _found(redirected, QemuSide({"tap3_kata"}, ())) == []


def test_vhost_user() -> None:
    """Of a vhost-user NIC it matters whether its back end is connected."""
    record = _RECORD._replace(kind=EndpointKind.VHOST_USER, vhost_user_socket="/run/vhu.sock")
    view = _VIEW._replace(record=record, host=HostSide(None))
    assert _found(view, QemuSide(set(), {"nic3"})) == []
    assert _found(view, QemuSide(set(), {"nic4"})) == [
        ("back end", "broken", "nobody is connected at /run/vhu.sock", "start the switch that serves the socket")
    ]


def test_connected_backends() -> None:
    """QEMU's answer to query-chardev names those that are connected; anything else names none."""
    answer = [
        {"label": "nic3", "filename": "unix:/run/vhu.sock", "frontend-open": True},
        {"label": "nic4", "filename": "disconnected:unix:/run/other.sock", "frontend-open": True},
        {"frontend-open": True},
        7,
    ]
    assert (connected_backends(answer), connected_backends({"label": "nic3"})) == ({"nic3"}, ())


def test_held_taps_of_nobody() -> None:
    """A process that has no TAP holds none; one that has ended cannot be looked into."""

    assert (held_taps(os.getpid()), held_taps((1 << 22) + 1)) == (set(), None)


class _Guest:
    """A guest in which only the commands given end with 0, and all others with ``status``."""

    def __init__(self, *succeeding: str, status: int = 1) -> None:
        self.asked: list[str] = []
        self._succeeding = succeeding
        self._status = status

    def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
    ) -> Completed:
        command = " ".join(argv)
        self.asked.append(command)
        if "crash" in self._succeeding:
            raise GuestError("the agent has no such program")
        return Completed(0 if command in self._succeeding else self._status, b"", b"")


_PROBE = "arping -D -q -f -c 2 -w 2 -I eth1 10.0.0.2"
_ARPING = "arping -q -f -c 2 -w 2 -I eth1 10.0.0.1"
_PING = "ping -4 -q -c 2 -i 0.2 -W 2 -I eth1 10.0.0.1"
_LARGE = "ping -4 -q -c 2 -i 0.2 -W 2 -I eth1 -s 1472 10.0.0.1"
_ROUTES = [listed_route("default", "10.0.0.1", "eth1"), listed_route("10.0.0.0/24", "", "eth1")]


def _probed(*succeeding: str, status: int = 1) -> list[tuple[str, str, str]]:
    found = probe_findings(_VIEW, _ROUTES, _Guest(*succeeding, status=status))
    return [(each.check, str(each.verdict), each.value) for each in found]


def test_probes() -> None:
    """Duplicate addresses, silent gateways and a narrow path are found by the guest's packets."""
    free = ("address", "ok", "no other host has 10.0.0.2")
    assert _probed(_PROBE, _PING, _LARGE) == [
        free, ("gateway", "ok", "10.0.0.1 answers"), ("path mtu", "ok", "1500 to 10.0.0.1")
    ]  # fmt: skip
    assert _probed(_PROBE, _PING)[2] == ("path mtu", "broken", "10.0.0.1 answers, but not to 1500 bytes")
    assert _probed(_PROBE, _ARPING)[1:] == [("gateway", "ok", "10.0.0.1 answers ARP, but no ping")]
    assert _probed(_PROBE)[1:] == [("gateway", "broken", "10.0.0.1 does not answer")]
    assert _probed(_PING, _LARGE)[0] == ("address", "broken", "another host on the segment has 10.0.0.2, too")
    assert _probed(_PING, _LARGE, status=127)[0] == (
        "address", "warning", "whether another has 10.0.0.2 is not known: arping ended with 127 in the guest"
    )  # fmt: skip
    assert _probed("crash") == [("probes", "warning", "the guest sends none: the agent has no such program")]


def test_other_gateways_are_not_asked() -> None:
    """Gateways of other NICs, and a NIC that is down, are not probed; IPv6 gateways are pinged with what fits."""
    guest = _Guest()
    routes = [listed_route("default", "10.9.9.1", "eth2"), listed_route("default", "fd00::1", "eth1")]
    list(probe_findings(_VIEW, routes, guest))
    assert guest.asked == [_PROBE, "ping -6 -q -c 2 -i 0.2 -W 2 -I eth1 fd00::1"]
    assert list(probe_findings(_VIEW._replace(guest=_GUEST._replace(is_up=False)), _ROUTES, guest)) == []
