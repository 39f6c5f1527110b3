"""Values of ``kata_runtime.address_types`` from text, for the expectations of tests."""

from __future__ import annotations

from kata_runtime.address_types import InterfaceAddress, IpAddress, MacAddress, Network
from kata_runtime.network.request_fields import GivenAddress, network_of
from kata_runtime.network.route_table import ListedRoute


def mac(text: str) -> MacAddress:
    """``02:42:20:6e:03:01``."""
    found = MacAddress.parse(text)
    assert found is not None
    return found


def ip(text: str) -> IpAddress:
    """``172.16.0.3`` or ``fd00::3``."""
    found = IpAddress.parse(text)
    assert found is not None
    return found


def interface_address(text: str) -> InterfaceAddress:
    """``172.16.0.3/16``."""
    found = InterfaceAddress.parse(text)
    assert found is not None
    return found


def given_address(text: str) -> GivenAddress:
    """``172.16.0.3/16``, as a user gave it."""
    return GivenAddress(interface_address(text), text)


def network(text: str) -> Network:
    """``10.0.0.0/8``, ``10.0.0.1``, or ``default`` of IPv4."""
    return network_of("0.0.0.0/0" if text == "default" else text, "dest")


def listed_route(dest: str, gateway: str, device: str) -> ListedRoute:
    """A row of list-routes; a default route without a gateway is of IPv4."""
    if dest == "default" and ":" in gateway:
        dest = "::/0"
    return ListedRoute(network(dest), ip(gateway) if gateway else None, device)
