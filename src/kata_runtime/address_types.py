"""Hardware and IP addresses as immutable values: decoded where they arrive, formatted where they are printed."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from kata_runtime.errors import ProtocolError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_MAC_BYTES = 6  # ETH_ALEN, include/uapi/linux/if_ether.h


class MacAddress(bytes):
    """A hardware address: six bytes; a kernel reports other lengths, or none, for interfaces that are not Ethernet.

    ``str`` is as ``02:42:20:6e:03:01``.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The six bytes of ``02:42:20:6e:03:01``, None of anything else."""
        parts = text.split(":")
        if len(parts) != _MAC_BYTES or any(len(part) != 2 or not _HEX_DIGITS.issuperset(part) for part in parts):
            return None
        return cls(bytes.fromhex("".join(parts)))

    @property
    def is_ethernet(self) -> bool:
        """Whether it has the length of an Ethernet address."""
        return len(self) == _MAC_BYTES

    def __str__(self) -> str:
        return self.hex(":")

    __repr__ = __str__


class IpAddress(bytes):
    """An IPv4 or IPv6 address: 4 or 16 bytes in network order. ``str`` is as inet_ntop(3) writes it."""

    __slots__ = ()

    def __new__(cls, packed: bytes) -> Self:
        """An address from its bytes.

        :raise ProtocolError: they are neither 4 nor 16.
        """
        if len(packed) not in (4, 16):
            raise ProtocolError(f"an IP address of {len(packed)} bytes")
        return super().__new__(cls, packed)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The address that inet_pton(3) reads, None of anything else."""
        if not text.isascii() or "\0" in text:
            return None
        try:
            return cls(inet_pton(AF_INET6 if ":" in text else AF_INET, text))
        except OSError:
            return None

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return AF_INET if len(self) == 4 else AF_INET6

    @property
    def bits(self) -> int:
        """The length of the address: 32 or 128."""
        return 8 * len(self)

    @property
    def is_unspecified(self) -> bool:
        """Whether it is 0.0.0.0 or ::."""
        return not any(self)

    @property
    def is_multicast(self) -> bool:
        """Whether it is in 224.0.0.0/4 (RFC 5771) or ff00::/8 (RFC 4291, section 2.7)."""
        return self[0] & 0xF0 == 0xE0 if len(self) == 4 else self[0] == 0xFF

    @property
    def is_link_local(self) -> bool:
        """Whether it is in fe80::/10 (RFC 4291, section 2.4)."""
        return len(self) == 16 and self[0] == 0xFE and self[1] & 0xC0 == 0x80

    def __str__(self) -> str:
        return inet_ntop(self.family, self)

    __repr__ = __str__


class InterfaceAddress(NamedTuple):
    """An address of an interface and the prefix length of its network; ``str`` is as ``172.16.0.3/16``."""

    address: IpAddress
    prefix_length: int

    @classmethod
    def parse(cls, text: str) -> InterfaceAddress | None:
        """The address of ``172.16.0.3/16``, None of anything else."""
        address, _, length = text.partition("/")
        found = IpAddress.parse(address)
        if found is None or not (length.isascii() and length.isdecimal() and len(length) <= 3):
            return None
        return cls(found, int(length)) if int(length) <= found.bits else None

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_length}"


class Network(NamedTuple):
    """The destination of a route; the bits behind ``prefix_length`` are 0 in ``address``.

    ``str`` is as ip-route(8) writes it: ``default``, ``10.0.0.0/8``, ``10.0.0.1``.
    """

    address: IpAddress
    prefix_length: int

    @classmethod
    def of(cls, address: IpAddress, prefix_length: int) -> Network:
        """The network of that length in which ``address`` is."""
        free = address.bits - prefix_length
        masked = int.from_bytes(address, "big") >> free << free
        return cls(IpAddress(masked.to_bytes(len(address), "big")), prefix_length)

    @classmethod
    def default(cls, family: int) -> Network:
        """The destination of the default route of a family."""
        return cls(IpAddress(bytes(16 if family == AF_INET6 else 4)), 0)

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return self.address.family

    def __str__(self) -> str:
        if self.prefix_length == 0:
            return "default"
        text = str(self.address)
        return text if self.prefix_length == self.address.bits else f"{text}/{self.prefix_length}"
