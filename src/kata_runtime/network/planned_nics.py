"""The steps of adding or deleting a NIC, as text for dry runs."""

from __future__ import annotations

from kata_runtime.sandbox.record import EndpointKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import NicRecord


def addition_steps(nic: NicRecord, request: NicRequest, pci_address: str) -> list[str]:
    """The steps in QEMU, guest and record that add a NIC, in their order."""
    pairs = max(nic.queues, 1)
    queues = f"{pairs} queue pair{'s' * (pairs > 1)}"
    if nic.vhost_user_socket:
        back_end = f"chardev-add socket {nic.vhost_user_socket}, netdev_add vhost-user, {queues}"
    else:
        back_end = f"netdev_add tap {nic.device}, {queues}"
    set_up = [f"name {nic.name}", f"mtu {nic.mtu}"]
    set_up += [f"address {address.text}" for address in request.addresses]
    set_up += ["up", *(["address by DHCP"] if nic.dhcp else [])]
    return [
        f"qemu: {back_end}",
        f"qemu: device_add virtio-net-pci, mac {nic.mac}, at {pci_address}",
        f"guest: {', '.join(set_up)}",
        f"record: NIC {nic.name}",
    ]


def deletion_steps(nic: NicRecord) -> list[str]:
    """The steps of del-iface and del-port, in their order."""
    return [
        f"qemu: device_del of NIC {nic.name}, mac {nic.mac}",
        f"qemu: netdev_del of {nic.device}",
        *_release_steps(nic),
        f"record: without NIC {nic.name}",
    ]


def _release_steps(nic: NicRecord) -> list[str]:
    """What is deleted on the host, for a NIC of add-port."""
    if nic.port is None:
        return []
    steps = [f"host: TAP {nic.device} is deleted with its last descriptor"]
    if nic.kind in (EndpointKind.OVS, EndpointKind.NEUTRON):
        steps.append(f"openvswitch: delete port {nic.device} from bridge {nic.port.bridge}")
    if nic.kind == EndpointKind.NEUTRON:
        steps.append(f"neutron: unbind port {nic.port.port} from host {nic.port.host}")
    return steps
