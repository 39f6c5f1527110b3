"""Checks of single fields of a NIC or route request.

Every function takes a decoded JSON value and the name of its field, and returns the checked value or raises
InputError with that field.
"""

from __future__ import annotations

from kata_runtime.address_types import InterfaceAddress, IpAddress, MacAddress, Network
from kata_runtime.errors import InputError
from kata_runtime.named_tuple import NamedTuple

NAME_LIMIT = 15  # characters: IFNAMSIZ - 1 (include/uapi/linux/if.h)
MTU_MIN = 46
MTU_MAX = 9600
# Queue pairs of one TAP: MAX_TAP_QUEUES in drivers/net/tun.c; QEMU's virtio-net would take 511.
QUEUES_MAX = 256
SOCKET_PATH_LIMIT = 128  # bytes, the guide's limit
UNIX_PATH_LIMIT = 107  # bytes: sun_path of unix(7) is 108 with its terminating NUL

_SHOWN_LIMIT = 64
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_NAME_CHARACTERS = _LETTERS | frozenset("0123456789_-.")
# Names of directories in /proc/sys/net/ipv4/conf (sysctl_dev_name_is_allowed, include/net/ip.h).
_KERNEL_NAMES = frozenset(("all", "default"))


class GivenAddress(NamedTuple):
    """An address of a NIC, and ``text`` for the user, such as ``172.16.0.3/16``, in the spelling that was given."""

    value: InterfaceAddress
    text: str


def shown(value: object) -> str:
    """A JSON value as error messages show it: in ASCII, strings quoted, long values cut."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and len(value) > _SHOWN_LIMIT:
        return f"{value[:_SHOWN_LIMIT]!a}... ({len(value)} characters)"
    return ascii(value)


def text_of(value: object, field: str) -> str:
    """The value if it is a string."""
    if not isinstance(value, str):
        raise InputError(f"{field} is {shown(value)}", field=field, hint="it must be a string")
    return value


def integer_of(value: object, field: str, low: int, high: int) -> int:
    """The value if it is a whole number in ``low``..``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{field} is {shown(value)}", field=field, hint=f"it must be a whole number, {low}-{high}")
    if not low <= value <= high:
        raise InputError(f"{field} is {value}", field=field, hint=f"it must be {low}-{high}")
    return value


def boolean_of(value: object, field: str) -> bool:
    """The value if it is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{field} is {shown(value)}", field=field, hint="it must be true or false")
    return value


def interface_name(value: object, field: str) -> str:
    """Name of a NIC on the host or in the container."""
    name = text_of(value, field)
    if (
        not 1 <= len(name) <= NAME_LIMIT
        or name[0] not in _LETTERS
        or not _NAME_CHARACTERS.issuperset(name)
        or name in _KERNEL_NAMES
    ):
        hint = f"a NIC name has 1-{NAME_LIMIT} characters of A-Z a-z 0-9 _ - . and starts with a letter"
        if name in _KERNEL_NAMES:
            hint = "the kernel keeps this name for itself"
        raise InputError(f"{field} is {shown(name)}", field=field, hint=hint)
    return name


def mac_address(value: object, field: str) -> MacAddress:
    """A unicast hardware address."""
    text = text_of(value, field)
    mac = MacAddress.parse(text)
    if mac is None:
        raise InputError(
            f"{field} is {shown(text)}", field=field, hint="a MAC address is written like 02:42:20:6e:03:01"
        )
    if mac[0] & 1:  # the group bit of IEEE 802
        raise InputError(f"{field} {text} is a multicast address", field=field, hint="a NIC needs a unicast one")
    if not any(mac):
        raise InputError(f"{field} {text} is the zero address", field=field, hint="a NIC needs a unicast one")
    return mac


def mtu_of(value: object, field: str) -> int:
    """An MTU in bytes."""
    return integer_of(value, field, MTU_MIN, MTU_MAX)


def queues_of(value: object, field: str) -> int:
    """A number of queue pairs; 0 and 1 both mean a single pair."""
    return integer_of(value, field, 0, QUEUES_MAX)


def host_address(value: object, field: str) -> IpAddress:
    """A unicast address; the unspecified address, multicast and 255.255.255.255 are refused."""
    text = text_of(value, field)
    address = IpAddress.parse(text)
    if address is None:
        raise InputError(f"{field} is {shown(text)}", field=field, hint="it must be an IPv4 or IPv6 address")
    if address.is_unspecified:
        raise InputError(f"{field} {text} is the unspecified address", field=field, hint="give a host's address")
    if address.is_multicast:
        raise InputError(f"{field} {text} is a multicast address", field=field, hint="give a host's address")
    if address == b"\xff\xff\xff\xff":
        raise InputError(f"{field} {text} is the broadcast address", field=field, hint="give a host's address")
    return address


def prefix_length(value: object, field: str, address: IpAddress, low: int) -> int:
    """A prefix length of ``address``, ``low``..32 or 128, from a number or its decimal digits."""
    high = address.bits
    number = value
    if isinstance(value, str):
        digits = value.isascii() and value.isdecimal() and len(value) <= 3 and (value == "0" or value[0] != "0")
        number = int(value) if digits else None
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise InputError(f"{field} is {shown(value)}", field=field, hint=f"it must be a prefix length, {low}-{high}")
    return number


def network_of(text: str, field: str) -> Network:
    """The network of ``ip/mask`` or ``ip``, host bits cleared."""
    spelled, slash, mask = text.partition("/")
    address = IpAddress.parse(spelled)
    if address is None:
        hint = "it must be an address, address/prefix length, or 'default'"
        raise InputError(f"{field} is {shown(text)}", field="dest", hint=hint)
    bits = address.bits
    try:
        length = prefix_length(mask, field, address, 0) if slash else bits
    except InputError as error:
        raise InputError(
            f"{field} is {shown(text)}", field="dest", hint=f"its prefix length must be 0-{bits}"
        ) from error
    return Network.of(address, length)


def nic_address(address: object, mask: object, field: str) -> GivenAddress:
    """An address and its prefix length from the two values of one entry of IPAddresses."""
    parsed = host_address(address, f"{field}.address")
    # With /0 the kernel makes no connected route (fib_add_ifaddr), so such an address reaches nothing.
    length = prefix_length(mask, f"{field}.mask", parsed, 1)
    return GivenAddress(InterfaceAddress(parsed, length), f"{address}/{length}")


def vhost_user_socket(value: object, field: str) -> str:
    """Path of the socket that a vhost-user back end listens on; ``""`` where the NIC has none."""
    path = text_of(value, field)
    if not path:
        return ""
    length = len(path.encode("utf-8", "surrogatepass"))
    if length > SOCKET_PATH_LIMIT:
        raise InputError(
            f"{field} has {length} bytes: {shown(path)}",
            field=field,
            hint=f"at most {SOCKET_PATH_LIMIT} are allowed",
        )
    if path[0] != "/":
        raise InputError(f"{field} is {shown(path)}", field=field, hint="it must be an absolute path")
    for component in path[1:].split("/"):
        if component in ("", ".", "..") or not _NAME_CHARACTERS.issuperset(component):
            raise InputError(
                f"{field} is {shown(path)}: {shown(component)} cannot be a part of it",
                field=field,
                hint="parts are letters, digits, '-', '_' and '.', but neither '.' nor '..'",
            )
    if length > UNIX_PATH_LIMIT:
        raise InputError(
            f"{field} has {length} bytes: {shown(path)}",
            field=field,
            hint=f"the kernel connects to socket paths of at most {UNIX_PATH_LIMIT} bytes; use a shorter one",
        )
    return path
