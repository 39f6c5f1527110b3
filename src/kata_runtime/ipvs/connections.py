"""The connections that IPVS balances, as /proc/net/ip_vs_conn tells them (net/netfilter/ipvs/ip_vs_conn.c)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs.model import Connection, address_text
from kata_runtime.ipvs.proc_file import rows
from kata_runtime.netlink.address import packed_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "ip_vs_conn"
_HEADING_LINES = 1
_FIELDS = 9  # protocol, three addresses with ports, state, seconds; then perhaps engine and its data


def parse_connections(pieces: Iterable[bytes]) -> Iterator[Connection]:
    """The entries of the file, without its heading.

    :raise ProtocolError: a line that is none.
    """
    return map(_connection, rows(pieces, _HEADING_LINES, "connections"))


def _connection(line: str) -> Connection:
    fields = line.split()
    if len(fields) < _FIELDS:
        raise ProtocolError(f"a connection of {len(fields)} fields")
    protocol, *ends = fields[:7]
    state, expires, *engine = fields[7:]
    try:
        shown = [_end(ends[place], ends[place + 1]) for place in (0, 2, 4)]
        return Connection(protocol, int(expires), state, *shown, *engine[:2])
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"a connection with {error}") from None


def _end(address: str, port: str) -> str:
    """IPv4 is eight hexadecimal digits, IPv6 eight groups in brackets or without."""
    number = int(port, 16)
    if ":" in address:
        packed = packed_address(address.strip("[]"))
        if packed is None:
            raise ValueError(f"address {address!a}")
        return address_text(AF_INET6, packed, number)
    return address_text(AF_INET, bytes.fromhex(address), number)
