"""The JSON that kata-network prints: one compact line, keys in the contract's order."""

from __future__ import annotations

from kata_runtime import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_runtime.address_types import InterfaceAddress
    from kata_runtime.network.guest_nic import NicState
    from kata_runtime.network.interfaces import AddedNic
    from kata_runtime.sandbox.record import NicRecord


def compact(value: object) -> str:
    """Encode as one line of JSON without spaces."""
    return fast_json.dumps(value)


def added_nic(added: AddedNic, nic: NicRecord) -> str:
    """The output of add-iface and add-port."""
    answer = _nic(nic, [_address(given.value, given.text) for given in added.addresses])
    if nic.vhost_user_socket:
        answer["vhostUserSocket"] = nic.vhost_user_socket
    if nic.queues:
        answer["queues"] = nic.queues
    if not nic.offload:
        answer["offload"] = False
    if nic.dhcp:
        answer["dhcp"] = True
    answer["pciAddr"] = added.pci_address
    if nic.port is not None:
        answer["port"] = nic.port.port
    return compact(answer)


def remaining_nic(nic: NicRecord) -> str:
    """The output of a failed del-iface: the NIC that still exists."""
    answer = _nic(nic, [_address(value, str(value)) for value in nic.addresses])
    answer["linkType"] = "vhost-user" if nic.vhost_user_socket else "tap"
    return compact(answer)


def listed_nics(nics: Iterable[NicState]) -> str:
    """The output of list-ifaces."""
    listed = [
        {"name": nic.name, "mac": str(nic.mac), "ip": [str(address) for address in nic.addresses], "mtu": nic.mtu}
        for nic in nics
    ]
    return compact(listed or None)


def listed_routes(routes: Iterable[tuple[str, str, str]]) -> str:
    """The output of the route commands, from (dest, gateway, device)."""
    return compact([route_object(*route) for route in routes] or None)


def route_object(dest: str, gateway: str, device: str) -> dict[str, object]:
    """A route as it is printed."""
    return {"dest": dest, "gateway": gateway, "device": device}


def _nic(nic: NicRecord, addresses: list[dict[str, object]]) -> dict[str, object]:
    return {
        "device": nic.device,
        "name": nic.name,
        "IPAddresses": addresses,
        "mtu": nic.mtu,
        "hwAddr": str(nic.mac),
    }


def _address(value: InterfaceAddress, text: str) -> dict[str, object]:
    return {"Family": value.address.family, "Address": text.partition("/")[0], "Mask": str(value.prefix_length)}
