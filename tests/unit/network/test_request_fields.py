"""Values at the edges of their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.typed_addresses import given_address, ip, mac

from kata_runtime.address_types import IpAddress
from kata_runtime.errors import InputError
from kata_runtime.network.request_fields import (
    host_address,
    interface_name,
    mac_address,
    nic_address,
    prefix_length,
    shown,
    vhost_user_socket,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address


def refusal(function: Callable[..., object], *arguments: object) -> str:
    """The line that refuses the arguments, empty when they are taken."""
    try:
        function(*arguments)
    except InputError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("name", ["a", "eth-test", "tap_test", "A.0", "abcdefghijklmno"])
def test_names(name: str) -> None:
    """1-15 characters of the allowed set are a name."""
    assert interface_name(name, "name") == name


def test_mac_is_lower_case() -> None:
    """One address has one spelling."""
    assert mac_address("02:42:20:6F:A3:69", "hwAddr") == mac("02:42:20:6f:a3:69")


@pytest.mark.parametrize("mask", [24, "24"])
def test_mask_as_text_or_number(mask: object) -> None:
    """A prefix length may be a number or its digits."""
    assert nic_address("10.1.2.3", mask, "x") == given_address("10.1.2.3/24")


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", " 1.2.3.4", "1.2.3.4\0", "::1%lo", ":::", "\u0661.1.1.1"]
)
def test_no_addresses(text: str) -> None:
    """Only the forms of inet_pton(3) are addresses."""
    assert IpAddress.parse(text) is None


@pytest.mark.parametrize(("path", "length"), [("/" + "x" * 106, 107), ("", 0), ("/run/vhost-user_1.sock", 22)])
def test_socket_paths(path: str, length: int) -> None:
    """Paths up to what a Unix socket holds are taken as they are."""
    assert (vhost_user_socket(path, "vhostUserSocket"), len(path)) == (path, length)


@pytest.mark.parametrize("path", ["/", "//x", "/x/", "/./x", "/x/..", "/x\0", "/\ud800"])
def test_bad_socket_paths(path: str) -> None:
    """Empty, dotted and hostile parts are refused."""
    with pytest.raises(InputError):
        vhost_user_socket(path, "vhostUserSocket")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=1)


@given(values)
def test_any_value(value: object) -> None:
    """Any value is taken or refused with an InputError of one printable ASCII line."""
    for check in (interface_name, mac_address, host_address, vhost_user_socket):
        line = refusal(check, value, "field")
        assert line.isascii()
        assert line.isprintable()
        assert line or isinstance(value, str)


@given(st.text())
def test_prefix_text(text: str) -> None:
    """A prefix length has exactly one spelling."""
    expected = f"mask is {shown(text)}; it must be a prefix length, 0-32"
    if text in {str(length) for length in range(33)}:
        expected = ""
    assert refusal(prefix_length, text, "mask", ip("10.0.0.1"), 0) == expected


@given(st.ip_addresses().filter(lambda address: not (address.is_multicast or address.is_unspecified)))
def test_address_round_trip(address: IPv4Address | IPv6Address) -> None:
    """The standard library's spelling of any host address is read into the same bytes."""
    if str(address) != "255.255.255.255":
        assert host_address(str(address), "address") == address.packed
