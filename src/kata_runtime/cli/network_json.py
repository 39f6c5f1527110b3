"""The JSON that kata-network prints: one compact line, keys in the contract's order."""

from __future__ import annotations

from kata_runtime import fast_json
from kata_runtime.netlink.address import packed_address
from kata_runtime.network.request_fields import family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def compact(value: object) -> str:
    """Encode as one line of JSON without spaces."""
    return fast_json.dumps(value)


def added_nic(
    *,
    device: str,
    name: str,
    addresses: Iterable[str],
    mac: str,
    mtu: int,
    vhost_user_socket: str,
    queues: int,
    offload: bool,
    dhcp: bool,
    pci_address: str,
    port: str = "",
) -> str:
    """The output of add-iface, or with ``port`` of add-port; ``addresses`` as ``172.16.0.3/16``."""
    answer = _nic(device, name, addresses, mac, mtu)
    if vhost_user_socket:
        answer["vhostUserSocket"] = vhost_user_socket
    if queues:
        answer["queues"] = queues
    if not offload:
        answer["offload"] = False
    if dhcp:
        answer["dhcp"] = True
    answer["pciAddr"] = pci_address
    if port:
        answer["port"] = port
    return compact(answer)


def remaining_nic(
    *, device: str, name: str, addresses: Iterable[str], mac: str, mtu: int, vhost_user_socket: str
) -> str:
    """The output of a failed del-iface: the NIC that still exists."""
    answer = _nic(device, name, addresses, mac, mtu)
    answer["linkType"] = "vhost-user" if vhost_user_socket else "tap"
    return compact(answer)


def listed_nics(nics: Iterable[tuple[str, str, Sequence[str], int]]) -> str:
    """The output of list-ifaces, from (name, mac, addresses with prefix length, mtu)."""
    listed = [{"name": name, "mac": mac, "ip": list(ip), "mtu": mtu} for name, mac, ip, mtu in nics]
    return compact(listed or None)


def listed_routes(routes: Iterable[tuple[str, str, str]]) -> str:
    """The output of the route commands, from (dest, gateway, device)."""
    listed = [{"dest": dest, "gateway": gateway, "device": device} for dest, gateway, device in routes]
    return compact(listed or None)


def _nic(device: str, name: str, addresses: Iterable[str], mac: str, mtu: int) -> dict[str, object]:
    return {
        "device": device,
        "name": name,
        "IPAddresses": [_address(address) for address in addresses],
        "mtu": mtu,
        "hwAddr": mac,
    }


def _address(with_prefix: str) -> dict[str, object]:
    text, _, mask = with_prefix.partition("/")
    return {"Family": family_of(packed_address(text) or bytes(4)), "Address": text, "Mask": mask}
