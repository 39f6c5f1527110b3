"""MAC and IP addresses as values: what is read as one, and how each is written."""

from __future__ import annotations

import ipaddress
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.typed_addresses import interface_address, ip, mac, network

from kata_runtime.address_types import InterfaceAddress, IpAddress, MacAddress, Network
from kata_runtime.errors import ProtocolError


@given(st.binary(min_size=6, max_size=6))
def test_mac_round_trip(packed: bytes) -> None:
    """Six bytes are written in lower case and read back, in upper case, too."""
    text = str(MacAddress(packed))
    assert text == ":".join(f"{byte:02x}" for byte in packed)
    assert (MacAddress.parse(text), MacAddress.parse(text.upper())) == (packed, packed)


@pytest.mark.parametrize(
    "text",
    ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02-00-00-00-00-01", "+2:00:00:00:00:01",
     " 2:00:00:00:00:01", "0_:00:00:00:00:01", "g2:00:00:00:00:01", "\u0662\u0662:00:00:00:00:01"],
)  # fmt: skip
def test_no_mac(text: str) -> None:
    """Only six times two hexadecimal digits are a MAC address, whatever int() takes besides."""
    assert MacAddress.parse(text) is None


def test_hardware_addresses_of_other_lengths() -> None:
    """What a kernel says of a tunnel is shown, but is no Ethernet address."""
    tunnel, none = MacAddress(b"\x0a\0\0\1"), MacAddress()
    assert (str(tunnel), tunnel.is_ethernet, str(none)) == ("0a:00:00:01", False, "")
    assert mac("02:42:20:6e:03:01").is_ethernet


@given(st.ip_addresses())
def test_ip_addresses_are_those_of_the_standard_library(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Bytes, family and kind of any address agree with ipaddress, in each of its spellings."""
    for text in (str(address), address.exploded, address.exploded.upper()):
        found = ip(text)
        assert (found, found.bits) == (address.packed, address.max_prefixlen)
        assert found.family == (AF_INET if address.version == 4 else AF_INET6)
        assert found.is_multicast == address.is_multicast
        assert found.is_link_local == (address.version == 6 and address.is_link_local)
        assert ipaddress.ip_address(str(found)) == address


@given(st.binary(max_size=20))
def test_ip_addresses_have_four_or_sixteen_bytes(packed: bytes) -> None:
    """Bytes of any other length are refused."""
    if len(packed) in (4, 16):
        assert IpAddress(packed) == packed
    else:
        with pytest.raises(ProtocolError, match=f"^an IP address of {len(packed)} bytes$"):
            IpAddress(packed)


def test_interface_addresses() -> None:
    """The address keeps its host bits; other texts are refused."""
    assert str(interface_address("172.16.0.3/16")) == "172.16.0.3/16"
    assert str(interface_address("FD00:0::3/64")) == "fd00::3/64"
    assert interface_address("10.0.0.1/0").prefix_length == 0
    for text in ("10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "::1/129", "10.0.0.1/+8", "10.0.0.1/8/8", "/8", "1/0x8"):
        assert InterfaceAddress.parse(text) is None


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_are_those_of_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    """Host bits are cleared as ipaddress clears them."""
    length = min(length, address.max_prefixlen)
    there = ipaddress.ip_network((address, length), strict=False)
    found = Network.of(IpAddress(address.packed), length)
    assert (found.address, found.prefix_length) == (there.network_address.packed, there.prefixlen)


def test_networks_are_written_as_iproute2_writes_them() -> None:
    """The default route has a name, and a single address no prefix length."""
    assert [str(network(text)) for text in ("10.9.9.9/8", "10.0.0.1/32", "fd00::1/64", "fd00::1", "0.0.0.0/0")] == [
        "10.0.0.0/8",
        "10.0.0.1",
        "fd00::/64",
        "fd00::1",
        "default",
    ]
    assert (str(Network.default(AF_INET6)), Network.default(AF_INET6).address) == ("default", bytes(16))
    assert Network.default(AF_INET) == network("default")
