"""Checks of a NIC from the guest to the host's bridge; each finding has its remedy."""

from __future__ import annotations

from _socket import AF_INET
from enum import StrEnum

from kata_runtime.errors import KataError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.endpoint.redirect import tap_name
from kata_runtime.sandbox.record import EndpointKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Protocol

    from kata_runtime.address_types import IpAddress
    from kata_runtime.guest.short_command import Completed
    from kata_runtime.network.host_devices import HostLink
    from kata_runtime.network.route_table import ListedRoute
    from kata_runtime.network.topology import GuestNic, NicView
    from kata_runtime.sandbox.record import NicRecord

    class Runner(Protocol):
        """Runs short commands in the guest."""

        def run(self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0) -> Completed: ...


_TAPS = (EndpointKind.TAP, EndpointKind.BRIDGE, EndpointKind.OVS, EndpointKind.NEUTRON)
# Busybox' arping(8) and ping(8) send two packets, and wait a second for each answer.
_PROBE_SECONDS = 20.0
# Exit status of arping -D when an answer came.
_ANSWERED = 1
_HEADERS = {4: 28, 6: 48}  # of the headers of an ICMP echo: IP and ICMP


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # packets pass, but there is a problem
    BROKEN = "broken"


class NicFinding(NamedTuple):
    """The result of one check; ``remedy`` says what to do, and is empty where nothing is wrong."""

    nic: str
    check: str
    verdict: Verdict
    value: str
    remedy: str = ""


class QemuSide(NamedTuple):
    """QEMU's side: the names of the TAPs that it has open, and the vhost-user NICs whose back end is connected.

    ``taps`` is None where the process's descriptors cannot be read. The NICs are named by their identity.
    """

    taps: Collection[str] | None
    connected: Collection[str]


def connected_backends(chardevs: object) -> Collection[str]:
    """The IDs of character devices whose other end is connected (QAPI: ChardevInfo)."""
    if not isinstance(chardevs, list):
        return ()
    return {
        str(each["label"])
        for each in chardevs
        if isinstance(each, dict) and "label" in each and not str(each.get("filename")).startswith("disconnected:")
    }


def host_findings(nic: NicView, qemu: QemuSide) -> Iterator[NicFinding]:
    """The findings from the state of host, QEMU and guest; sends no packet."""
    yield from _device_findings(nic, qemu)
    yield from _bridge_findings(nic)
    yield from _guest_findings(nic)
    yield from _mtu_findings(nic)
    yield from _offload_findings(nic)


def _device_findings(nic: NicView, qemu: QemuSide) -> Iterator[NicFinding]:
    record = nic.record
    again = _again(record)
    if record.kind == EndpointKind.VHOST_USER:
        if record.identity in qemu.connected:
            yield NicFinding(record.name, "back end", Verdict.OK, f"connected at {record.vhost_user_socket}")
        else:
            value = f"nobody is connected at {record.vhost_user_socket}"
            yield NicFinding(record.name, "back end", Verdict.BROKEN, value, "start the switch that serves the socket")
        return
    device = nic.host.device
    if device is None:
        remedy = again
        if record.port is None:
            remedy = f"create it with 'ip tuntap add {record.device} mode tap' and {again}"
        if not nic.host.missing.startswith("there is no"):
            remedy = "run the check in the network namespace of the device, with 'ip netns exec'"
        yield NicFinding(record.name, "device", Verdict.BROKEN, nic.host.missing, remedy)
        return
    if device.is_up:
        yield NicFinding(record.name, "device", Verdict.OK, f"{record.device} is up")
    else:
        remedy = f"ip link set {record.device} up"
        yield NicFinding(record.name, "device", Verdict.BROKEN, f"{record.device} is down", remedy)
    if record.kind == EndpointKind.MACVTAP or qemu.taps is None:
        return
    held = tap_name(record.slot) if record.kind == EndpointKind.REDIRECT else record.device
    if held in qemu.taps:
        yield NicFinding(record.name, "QEMU", Verdict.OK, f"holds {held}")
    else:
        yield NicFinding(record.name, "QEMU", Verdict.BROKEN, f"does not hold {held}", again)


def _again(record: NicRecord) -> str:
    if record.port is not None:
        return "delete and add the port again: del-port, add-port"
    return f"delete and add the NIC again: del-iface, add-iface with the device {record.device}"


def _bridge_findings(nic: NicView) -> Iterator[NicFinding]:
    record, host = nic.record, nic.host
    bridge = host.bridge
    if bridge is not None:
        value = f"port of {bridge.name}"
        if bridge.error:
            yield NicFinding(record.name, "bridge", Verdict.BROKEN, f"{value}: {bridge.error}", "see ovs-vsctl show")
        elif not bridge.is_up:
            remedy = f"ip link set {bridge.name} up"
            yield NicFinding(record.name, "bridge", Verdict.BROKEN, f"{value}, which is down", remedy)
        elif not bridge.ports and bridge.name not in host.addressed and not bridge.datapath:
            remedy = f"add a port: ip link set DEVICE master {bridge.name}"
            value = f"{value}, which has no other port and no address"
            yield NicFinding(record.name, "bridge", Verdict.WARNING, value, remedy)
        else:
            yield NicFinding(record.name, "bridge", Verdict.OK, value)
    elif host.device is not None and record.port is not None:
        value = f"{record.device} is no port of {record.port.bridge}"
        if record.port.ovsdb:
            value += ", or Open vSwitch does not answer: see ovs-vsctl show"
        yield NicFinding(record.name, "bridge", Verdict.BROKEN, value, _again(record))
    elif host.device is not None and record.kind == EndpointKind.TAP and record.device not in host.addressed:
        value = f"{record.device} is a port of no bridge, and has no address"
        remedy = f"ip link set {record.device} master BRIDGE, or give it an address to route from"
        yield NicFinding(record.name, "bridge", Verdict.BROKEN, value, remedy)


def _guest_findings(nic: NicView) -> Iterator[NicFinding]:
    name, guest = nic.record.name, nic.guest
    if guest is None:
        yield NicFinding(name, "guest", Verdict.BROKEN, "the guest has no such NIC", "del-iface, and add it again")
    elif not guest.is_up:
        remedy = f"have the container set it up: ip link set {guest.name} up"
        yield NicFinding(name, "guest", Verdict.BROKEN, f"{guest.name} is down in the guest", remedy)
    elif not guest.has_carrier:
        yield NicFinding(
            name, "guest", Verdict.BROKEN, f"{guest.name} has no carrier", "look at the device and QEMU above"
        )
    else:
        yield NicFinding(name, "guest", Verdict.OK, f"{guest.name} is up")


def _mtu_findings(nic: NicView) -> Iterator[NicFinding]:
    """Compare the MTUs along the path: a device drops frames larger than its own without an error."""
    if nic.guest is None:
        return
    mtu = nic.guest.mtu
    path: list[HostLink] = [link for link in (nic.host.device, nic.host.peer) if link is not None]
    ports = nic.host.bridge.ports if nic.host.bridge is not None else ()
    narrow = [link for link in path if link.mtu < mtu]
    narrow_ports = [link for link in ports if 0 < link.mtu < mtu]
    if narrow:
        value = f"{mtu} in the guest, {narrow[0].mtu} on {narrow[0].name}"
        remedy = f"ip link set {narrow[0].name} mtu {mtu}, or add the NIC with mtu {narrow[0].mtu}"
        yield NicFinding(nic.record.name, "mtu", Verdict.BROKEN, value, remedy)
    elif narrow_ports:
        value = f"{mtu} in the guest, {narrow_ports[0].mtu} on the port {narrow_ports[0].name}"
        remedy = f"ip link set {narrow_ports[0].name} mtu {mtu}, or add the NIC with mtu {narrow_ports[0].mtu}"
        yield NicFinding(nic.record.name, "mtu", Verdict.WARNING, value, remedy)
    else:
        yield NicFinding(nic.record.name, "mtu", Verdict.OK, str(mtu))


def _offload_findings(nic: NicView) -> Iterator[NicFinding]:
    """Warn of offload with a user-space switch: it reads the TAP's frames unchanged, without their TCP checksums."""
    record, bridge = nic.record, nic.host.bridge
    if record.kind not in _TAPS or bridge is None or bridge.datapath != "netdev":
        return
    if record.offload:
        value = f"left to the host, which {bridge.name} (datapath netdev) does not do: TCP does not work"
        remedy = 'delete the NIC and add it again with "offload":false, or use a vhost-user port'
        yield NicFinding(record.name, "offload", Verdict.BROKEN, value, remedy)
    else:
        yield NicFinding(record.name, "offload", Verdict.OK, "off, as a switch in user space needs it")


def probe_findings(nic: NicView, routes: Sequence[ListedRoute], guest: Runner) -> Iterator[NicFinding]:
    """The findings from packets that the guest sends: duplicate addresses, gateways and the path MTU to them.

    A guest that cannot send them, such as one without arping(8) or ping(8), gets a warning.
    """
    if nic.guest is None or not nic.guest.is_up:
        return
    try:
        for found in nic.guest.addresses:
            if found.address.family == AF_INET:
                yield _duplicate(nic.record.name, nic.guest, found.address, guest)
        gateways = dict.fromkeys(route.gateway for route in routes if route.device == nic.guest.name and route.gateway)
        for gateway in gateways:
            yield from _gateway(nic.record.name, nic.guest, gateway, guest)
    except KataError as error:
        remedy = "see whether the container's guest works: kata-runtime kata-network show"
        yield NicFinding(nic.record.name, "probes", Verdict.WARNING, f"the guest sends none: {error}", remedy)


def _duplicate(name: str, guest: GuestNic, address: IpAddress, runner: Runner) -> NicFinding:
    """Probe for a duplicate address (RFC 5227, section 2.1.1): an ARP request with sender address 0.0.0.0."""
    argv = ("arping", "-D", "-q", "-f", "-c", "2", "-w", "2", "-I", guest.name, str(address))
    status = runner.run(argv, seconds=_PROBE_SECONDS).exit_status
    if status == 0:
        return NicFinding(name, "address", Verdict.OK, f"no other host has {address}")
    if status != _ANSWERED:
        remedy = "see whether the container's guest works"
        value = f"whether another has {address} is not known: arping ended with {status} in the guest"
        return NicFinding(name, "address", Verdict.WARNING, value, remedy)
    remedy = f"give one of the two another address; 'arping -I BRIDGE {address}' shows the other's MAC address"
    return NicFinding(name, "address", Verdict.BROKEN, f"another host on the segment has {address}, too", remedy)


def _gateway(name: str, guest: GuestNic, gateway: IpAddress, runner: Runner) -> Iterator[NicFinding]:
    is_four = gateway.family == AF_INET
    ping = ("ping", "-4") if is_four else ("ping", "-6")
    probe = (*ping, "-q", "-c", "2", "-i", "0.2", "-W", "2", "-I", guest.name)
    if not _succeeds(runner, *probe, str(gateway)):
        if is_four and _succeeds(runner, "arping", "-q", "-f", "-c", "2", "-w", "2", "-I", guest.name, str(gateway)):
            yield NicFinding(name, "gateway", Verdict.OK, f"{gateway} answers ARP, but no ping")
            return
        remedy = "correct the route (list-routes, del-route, add-route), or see whether the gateway's side is up"
        yield NicFinding(name, "gateway", Verdict.BROKEN, f"{gateway} does not answer", remedy)
        return
    yield NicFinding(name, "gateway", Verdict.OK, f"{gateway} answers")
    size = guest.mtu - _HEADERS[4 if is_four else 6]
    if size > 0 and not _succeeds(runner, *probe, "-s", str(size), str(gateway)):
        remedy = f"find the device on the way with an mtu below {guest.mtu}, or add the NIC with a smaller one"
        yield NicFinding(name, "path mtu", Verdict.BROKEN, f"{gateway} answers, but not to {guest.mtu} bytes", remedy)
    else:
        yield NicFinding(name, "path mtu", Verdict.OK, f"{guest.mtu} to {gateway}")


def _succeeds(guest: Runner, *argv: str) -> bool:
    return guest.run(argv, seconds=_PROBE_SECONDS).exit_status == 0
