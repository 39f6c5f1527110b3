"""Servers as /proc/net/ip_vs lists them: a sixth of netlink's bytes, and all that -L and most of -S show of them.

The file lacks counters, thresholds, persistent connections and tunnel options, and the flags of services. Services
therefore come from netlink; the file's lines about them are compared with it, to see that both describe the same table.
It is read where there are services of IPv6, which socket options lack.
Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show.
"""

from __future__ import annotations

import re
from _socket import AF_INET, AF_INET6, inet_pton

from kata_runtime.errors import ConflictError, ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.ipvs.attributes import NOT_COUNTED
from kata_runtime.ipvs.model import FORWARDING_NAMES, Server, ServerKey, ServerSpec
from kata_runtime.ipvs.proc_file import rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from kata_runtime.ipvs.model import ServiceSpec

    T = TypeVar("T")

NAME = "ip_vs"
_WHAT = "virtual servers"
_HEADING_LINES = 3
# Half a kilobyte each.
_SERVERS_MAX = 200_000
_ARROW = "  -> "
# An end, how it is reached, weight, active and inactive connections; no number of the kernel's is longer.
_SERVER_LINE = re.compile(r"  -> (\S{13,46}) +([A-Z][a-z]+) +([0-9]{1,10}) +([0-9]{1,10}) +([0-9]{1,10}) *", re.ASCII)
_END = re.compile(r"(?:([0-9A-F]{8})|\[([0-9a-f:]{2,39})\]):([0-9A-F]{4})", re.ASCII)
_FORWARDING = {names.listed: kind for kind, names in FORWARDING_NAMES.items()}


def servers(
    specs: Iterable[ServiceSpec], pieces: Iterable[bytes], show: Callable[[Server], T]
) -> Iterator[tuple[ServiceSpec, list[T]]]:
    """Each of ``specs``, which are in the kernel's order, with what ``show`` makes of its servers.

    Of equal servers ``show`` may be given only the first.

    :raise ConflictError: the file lists other services. :raise ProtocolError: it is broken.
    """

    # Servers that stand behind several services have the same line while they have no connections.
    @lru_cache(maxsize=1 << 13)
    def row(line: str) -> T:
        return show(_server(line))

    waiting = iter(specs)
    spec: ServiceSpec | None = None
    found: list[T] = []
    for line in rows(pieces, _HEADING_LINES, _WHAT):
        if line.startswith(_ARROW):
            found.append(row(line))
            if len(found) > _SERVERS_MAX:
                raise ProtocolError(f"more than {_SERVERS_MAX} servers of one service in the guest's list of {_WHAT}")
            continue
        if spec is not None:
            yield spec, found
            found = []
        spec = next(waiting, None)
        if spec is None or not line.startswith(_head(spec)):
            raise _changed()
    if spec is not None:
        yield spec, found
    elif found:
        raise ProtocolError(f"servers without a service in the guest's list of {_WHAT}")
    if next(waiting, None) is not None:
        raise _changed()


def count(pieces: Iterable[bytes]) -> int:
    """How many services and servers the file lists.

    :raise ProtocolError: it is broken.
    """
    lines = sum(piece.count(b"\n") for piece in pieces)
    if lines < _HEADING_LINES:
        raise ProtocolError(f"the guest's list of {_WHAT} lacks its heading")
    return lines - _HEADING_LINES


def _changed() -> ConflictError:
    return ConflictError("the virtual servers changed while they were read", hint="try again")


def _head(spec: ServiceSpec) -> str:
    """How the line of a service begins."""
    key = spec.key
    if key.mark:
        return f"FWM  {key.mark:08X} {spec.scheduler} "
    if key.family == AF_INET6:
        return f"{key.protocol.name}  [{key.address.hex(':', 2)}]:{key.port:04X} {spec.scheduler} "
    return f"{key.protocol.name}  {key.address.hex().upper()}:{key.port:04X} {spec.scheduler} "


def _server(line: str) -> Server:
    found = _SERVER_LINE.fullmatch(line)
    if found is None:
        raise _broken(line)
    end, method, weight, active, inactive = found.groups()
    try:
        spec = ServerSpec(_end(end), _FORWARDING[method], int(weight))
    except (ValueError, KeyError, OSError):
        raise _broken(line) from None
    return Server(spec, int(active), int(inactive), 0, NOT_COUNTED)


def _broken(line: str) -> ProtocolError:
    return ProtocolError(f"a server {line[:80]!a} in the guest's list of {_WHAT}")


@lru_cache(maxsize=1 << 15)
def _end(text: str) -> ServerKey:
    """``0A000001:0050`` or ``[fd00:0000:...]:0050``."""
    found = _END.fullmatch(text)
    if found is None:
        raise ValueError(text)
    four, six, port = found.groups()
    if four is None:
        return ServerKey(AF_INET6, inet_pton(AF_INET6, six), int(port, 16))
    return ServerKey(AF_INET, bytes.fromhex(four), int(port, 16))
