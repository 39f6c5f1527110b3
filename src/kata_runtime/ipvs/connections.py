"""The connections that IPVS balances, parsed from /proc/net/ip_vs_conn (net/netfilter/ipvs/ip_vs_conn.c)."""

from __future__ import annotations

import re
from _socket import AF_INET, AF_INET6

from kata_runtime.address_types import IpAddress
from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs.model import Connection, address_text
from kata_runtime.ipvs.proc_file import rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "ip_vs_conn"
_HEADING_LINES = 1
_FIELDS = 9  # protocol, three addresses with ports, state, seconds; then perhaps engine and its data
_PORT = re.compile(r"[0-9A-F]{4}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,19}", re.ASCII)
_ADDRESS4 = re.compile(r"[0-9A-F]{8}", re.ASCII)


def parse_connections(pieces: Iterable[bytes]) -> Iterator[Connection]:
    """The entries of the file, without its heading.

    :raise ProtocolError: a line is no connection.
    """
    return map(_connection, rows(pieces, _HEADING_LINES, "connections"))


def _connection(line: str) -> Connection:
    fields = line.split()
    if len(fields) < _FIELDS:
        raise ProtocolError(f"a connection of {len(fields)} fields")
    protocol, *ends = fields[:7]
    state, expires, *engine = fields[7:]
    if not _SECONDS.fullmatch(expires):
        raise ProtocolError(f"a connection that expires in {expires[:40]!a} seconds")
    source, virtual, destination = (_end(ends[place], ends[place + 1]) for place in (0, 2, 4))
    return Connection(protocol, int(expires), state, source, virtual, destination, *engine[:2])


def _end(address: str, port: str) -> str:
    """IPv4 is eight hexadecimal digits, IPv6 eight groups in brackets or without."""
    packed: bytes | None
    family = AF_INET6 if ":" in address else AF_INET
    if family == AF_INET6:
        packed = IpAddress.parse(address.strip("[]"))
    else:
        packed = bytes.fromhex(address) if _ADDRESS4.fullmatch(address) else None
    if packed is None or not _PORT.fullmatch(port):
        raise ProtocolError(f"a connection with the end {address[:40]!a} {port[:40]!a}")
    return address_text(family, packed, int(port, 16))
