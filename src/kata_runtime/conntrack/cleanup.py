"""Tracked connections of the guest: deleted by original destination and protocol (ctnetlink).

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, conntrack(8).
"""

from __future__ import annotations

import errno
import struct
from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress
from kata_runtime.errors import InputError, ProtocolError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.exchange import Request, attempt_all, decoded
from kata_runtime.netlink.message import NLA_F_NESTED, NLM_F_DUMP, pack_attribute, parse_attributes, unpack_u8
from kata_runtime.netlink.transport import Family
from kata_runtime.shell_words import split_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.netlink.transport import Transport

# include/uapi/linux/netfilter/nfnetlink.h
_SUBSYSTEM = 1  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = (_SUBSYSTEM << 8 | command for command in (0, 1, 2))  # IPCTNL_MSG_CT_*
_HEADER = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource

_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE = 1, 12, 18
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_DST = {AF_INET: 2, AF_INET6: 4}
_CTA_PROTO_NUM = 1

# A request takes a third of a kilobyte, more if the kernel refuses it.
_DELETIONS_MAX = 262_144
_DELETIONS_AT_ONCE = 10_000

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_OPTIONS = {"-d": "orig-dst", "--orig-dst": "orig-dst", "-p": "protonum", "--protonum": "protonum"}


class Filter(NamedTuple):
    """Which connections; ``protocol`` is an IP protocol number or 0 for all, an empty ``destination`` is any."""

    destination: bytes
    protocol: int


def parse_filter(text: str) -> Filter:
    """Parse ``--parameters`` of cleanup.

    :raise InputError: an unknown option or value, or neither destination nor protocol.
    """
    given: dict[str, str] = {}
    words = split_words(text)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") and word[:2] in _OPTIONS and len(word) > 2:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        if name not in _OPTIONS:
            raise InputError(f"cleanup does not know {word!a}", hint="-d ADDRESS and -p tcp|udp are possible")
        option = _OPTIONS[name]
        if option in given:
            raise InputError(f"--{option} is given twice")
        if not equals and not words:
            raise InputError(f"option --{option} lacks its value")
        given[option] = value if equals else words.pop(0)
    if not given:
        raise InputError("cleanup needs to know what to delete", hint="give -d ADDRESS, -p tcp|udp, or both")
    return Filter(_destination(given.get("orig-dst")), _protocol(given.get("protonum")))


def delete_matching(transport: Transport, which: Filter) -> int:
    """Delete the tracked connections that match; returns their number.

    :raise KernelError: the kernel refused. :raise ProtocolError: it answered in a broken format.
    """
    return sum(_delete(transport, _matching(transport, family, which)) for family in _families(which))


def count_matching(transport: Transport, which: Filter) -> int:
    """Count the matching connections, without deleting them. :raise KernelError, ProtocolError: as for deletion."""
    return sum(len(_matching(transport, family, which)) for family in _families(which))


def _families(which: Filter) -> list[int]:
    if which.destination:
        return [AF_INET if len(which.destination) == 4 else AF_INET6]
    return [AF_INET, AF_INET6]


def _matching(transport: Transport, family: int, which: Filter) -> list[Request]:
    """The requests that delete those of one family."""
    doomed: list[Request] = []

    def decode(payload: bytes) -> None:
        # Only what is to be deleted is kept: a guest can track a quarter of a million connections.
        if _matches(payload, family, which):
            if len(doomed) == _DELETIONS_MAX:
                raise ProtocolError(f"the guest lists more than {_DELETIONS_MAX} tracked connections that match")
            doomed.append(_deletion(payload))

    dump = Request("list tracked connections", _GET, NLM_F_DUMP, _HEADER.pack(family, 0, 0))
    decoded(transport, Family.NETFILTER, dump, decode, row_bytes=8)
    return doomed


def _delete(transport: Transport, doomed: Sequence[Request]) -> int:
    deleted = 0
    for start in range(0, len(doomed), _DELETIONS_AT_ONCE):
        part = doomed[start : start + _DELETIONS_AT_ONCE]
        refused = attempt_all(transport, Family.NETFILTER, part)
        for error in refused.values():
            # ENOENT: the connection has ended meanwhile.
            if error.errno != errno.ENOENT:
                raise error
        deleted += len(part) - len(refused)
    return deleted


def _destination(text: str | None) -> bytes:
    if text is None:
        return b""
    packed = IpAddress.parse(text)
    if packed is None:
        raise InputError(f"original destination {text!a} is no address", hint="write 10.0.0.1 or fd00::1")
    return packed


def _protocol(text: str | None) -> int:
    if text is None:
        return 0
    number = PROTOCOLS.get(text.lower())
    if number is None:
        raise InputError(f"protocol {text!a} is unknown", hint=f"one of {', '.join(PROTOCOLS)}")
    return number


def _attributes(entry: bytes) -> dict[int, bytes]:
    if len(entry) < _HEADER.size:
        raise ProtocolError(f"a tracked connection of {len(entry)} bytes")
    return parse_attributes(entry[_HEADER.size :])


def _matches(entry: bytes, family: int, which: Filter) -> bool:
    if entry[:1] != bytes([family]):
        return False
    original = parse_attributes(_attributes(entry).get(_CTA_TUPLE_ORIG, b""))
    if which.destination:
        ip = parse_attributes(original.get(_CTA_TUPLE_IP, b""))
        if ip.get(_CTA_IP_DST[family]) != which.destination:
            return False
    if which.protocol:
        protocol = parse_attributes(original.get(_CTA_TUPLE_PROTO, b"")).get(_CTA_PROTO_NUM, b"\0")
        return unpack_u8(protocol) == which.protocol
    return True


def _deletion(entry: bytes) -> Request:
    """Delete exactly this connection: the ID keeps a new one between the same ends alive."""
    attributes = _attributes(entry)
    if _CTA_TUPLE_ORIG not in attributes:
        raise ProtocolError("a tracked connection without its ends")
    parts = [pack_attribute(_CTA_TUPLE_ORIG | NLA_F_NESTED, attributes[_CTA_TUPLE_ORIG])]
    parts += [pack_attribute(kind, attributes[kind]) for kind in (_CTA_ID, _CTA_ZONE) if kind in attributes]
    payload = _HEADER.pack(entry[0], 0, 0) + b"".join(parts)
    return Request("delete a tracked connection", _DELETE, 0, payload)
