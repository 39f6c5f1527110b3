"""The output of kata-network show with --format json; docs/monitoring.md explains the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.cli.network_json import route_object

if TYPE_CHECKING:
    from kata_runtime.netlink.link_details import Counters
    from kata_runtime.network.host_devices import Bridge, HostLink, HostSide
    from kata_runtime.network.topology import GuestNic, NicView, Rates, Topology


def document(shown: Topology) -> dict[str, object]:
    """One container."""
    record = shown.record
    return {
        "id": record.container_id,
        "pid": record.pid,
        "accelerator": record.accelerator,
        "vcpus": record.vcpus,
        "nics": [_nic(nic) for nic in shown.nics],
        "routes": [route_object(*route.texts) for route in shown.routes],
    }


def _nic(nic: NicView) -> dict[str, object]:
    record = nic.record
    return {
        "name": record.name,
        "mac": str(record.mac),
        "pciAddr": nic.pci_address,
        "queues": record.queues,
        "source": "namespace" if record.carried_from else "add-iface",
        "guest": None if nic.guest is None else _guest(nic.guest),
        "rates": None if nic.rates is None else _rates(nic.rates),
        "host": _host(nic),
    }


def _guest(nic: GuestNic) -> dict[str, object]:
    counters = nic.counters
    return {
        "name": nic.name,
        "mac": str(nic.mac),
        "mtu": nic.mtu,
        "up": nic.is_up,
        "carrier": nic.has_carrier,
        "addresses": [str(address) for address in nic.addresses],
        "received": _traffic(counters, "received"),
        "sent": _traffic(counters, "sent"),
    }


def _traffic(counters: Counters, direction: str) -> dict[str, int]:
    return {kind: getattr(counters, f"{direction}_{kind}") for kind in ("bytes", "packets", "errors", "dropped")}


def _rates(rates: Rates) -> dict[str, object]:
    return {
        "receivedBytes": round(rates.received_bytes),
        "receivedPackets": round(rates.received_packets),
        "sentBytes": round(rates.sent_bytes),
        "sentPackets": round(rates.sent_packets),
    }


def _host(nic: NicView) -> dict[str, object]:
    host: HostSide = nic.host
    return {
        "kind": str(nic.record.kind),
        "device": nic.record.device,
        "vhostUserSocket": nic.record.vhost_user_socket,
        "namespace": host.namespace,
        "link": None if host.device is None else _link(host.device),
        "missing": host.missing,
        "peer": None if host.peer is None else _link(host.peer),
        "bridge": None if host.bridge is None else _bridge(host.bridge),
    }


def _link(link: HostLink) -> dict[str, object]:
    return {
        "name": link.name,
        "kind": link.kind,
        "mtu": link.mtu,
        "up": link.is_up,
        "carrier": link.has_carrier,
    }


def _bridge(bridge: Bridge) -> dict[str, object]:
    return {
        "name": bridge.name,
        "kind": bridge.kind,
        "up": bridge.is_up,
        "datapath": bridge.datapath,
        "tag": bridge.tag,
        "error": bridge.error,
        "ports": [_link(port) for port in bridge.ports],
    }
