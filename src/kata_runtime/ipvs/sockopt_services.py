"""All services at once, read by one socket option, where it is certain that it lists all that there are.

Netlink needs 13 microseconds for each service on an emulated processor, and more the more there are: it searches the
table from its head for each 100 of them. The socket option needs 2, but lists only services of IPv4, and leaves their
persistence engines out. The uses of the kernel's modules show whether there is anything else (``module_uses``).
Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_genl_dump_services and __ip_vs_get_service_entries.
"""

from __future__ import annotations

import struct
from _socket import AF_INET
from itertools import repeat

from kata_runtime.errors import KernelError, ProtocolError
from kata_runtime.fast_functools import lru_cache
from kata_runtime.guest.wire import MODULES
from kata_runtime.ipvs import module_uses
from kata_runtime.ipvs.attributes import MASK4, NOT_COUNTED, PROTOCOLS
from kata_runtime.ipvs.kernel_names import module_name
from kata_runtime.ipvs.model import Protocol, ServiceFlag, ServiceKey, ServiceSpec, Statistics
from kata_runtime.ipvs.socket_options import (
    ANSWER_BYTES,
    GET_INFO,
    GET_SERVICES,
    IDENTITY,
    NUMBER,
    STATISTICS,
    answers,
    covers,
    identity_of,
    is_exact,
    normalised,
)
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.ipvs.attributes import Settings
    from kata_runtime.ipvs.socket_options import Guest

_INFO = struct.Struct("=III")  # struct ip_vs_getinfo: version, size of the table of connections, num_services
_HEAD_BYTES = 8  # struct ip_vs_get_services without its entries
# struct ip_vs_service_entry: the identity; sched_name, flags, timeout and netmask; num_dests; struct ip_vs_stats_user.
_ENTRY = struct.Struct("=16s28sI56s")
_SETTINGS = struct.Struct("=16sII4s")
_COUNTERS = struct.Struct(f"={STATISTICS}")
# Netlink lists fewer in the time of the requests that are needed here.
_MANY = 200


class Entry(NamedTuple):
    """A service of IPv4 as the kernel lists it."""

    identity: bytes
    settings: bytes
    servers: int  # how many it has
    counters: bytes

    @property
    def asked(self) -> tuple[bytes, int]:
        """What asks for its servers: its identity and how many it has."""
        return normalised(self.identity), self.servers

    @property
    def is_empty(self) -> bool:
        """Whether the kernel left it alone: a service has at least the name of a scheduler."""
        return not any(self.settings)

    def head(self, *, statistics: bool) -> tuple[ServiceSpec, Statistics]:
        """The service without its servers; ``statistics``: with its counters.

        :raise ProtocolError: it is broken.
        """
        protocol, address, port, mark = IDENTITY.unpack(self.identity)
        if mark:
            key = ServiceKey(AF_INET, Protocol.NONE, b"", 0, mark)
        elif protocol in PROTOCOLS:
            key = ServiceKey(AF_INET, PROTOCOLS[protocol], address, port[0] << 8 | port[1])
        else:
            raise ProtocolError(f"a virtual service of protocol {protocol}")
        return ServiceSpec(key, *_settings(self.settings)), self._statistics() if statistics else NOT_COUNTED

    def _statistics(self) -> Statistics:
        return Statistics(*_COUNTERS.unpack(self.counters))

    @property
    def is_exact(self) -> bool:
        """Whether its counters are those of netlink, which have 64 bits."""
        return is_exact(self._statistics())


# Thousands of services share a few.
@lru_cache(maxsize=1 << 10)
def _settings(packed: bytes) -> Settings:
    scheduler, flags, timeout, mask = _SETTINGS.unpack(packed)
    return module_name(scheduler.rstrip(b"\0")), flags & ~ServiceFlag.HASHED, timeout, MASK4.unpack(mask)[0], ""


def listed(guest: Guest, services: int) -> list[Entry]:
    """The services of IPv4, and empty entries up to ``services``; none if these are too many for one answer.

    :raise KernelError: the kernel refused. :raise ProtocolError: the answer is broken.
    """
    size = _HEAD_BYTES + services * _ENTRY.size
    if size > ANSWER_BYTES or not services:
        return []
    (answer,) = answers(guest, GET_SERVICES, iter([(size, NUMBER.pack(services))]))
    return list(map(tuple.__new__, repeat(Entry), _ENTRY.iter_unpack(memoryview(answer)[_HEAD_BYTES:])))


def identified(guest: Guest, keys: Sequence[ServiceKey]) -> list[tuple[bytes, int] | None]:
    """What asks for the servers of each service, as ``Entry.asked``; None for those that the option does not list.

    :raise KernelError: the kernel refused. :raise ProtocolError: the answer is broken.
    """
    identities = [identity_of(key) if covers(key) else b"" for key in keys]
    asked = {asked[0]: asked for asked in (entry.asked for entry in listed(guest, sum(map(bool, identities))))}
    return [asked.get(identity) for identity in identities]


def all_services(guest: Guest, *, statistics: bool) -> list[Entry] | None:
    """All services, in the kernel's order; None where they are few, there may be others, or counters are too large.

    :raise ProtocolError: an answer is broken.
    """
    try:
        (info,) = answers(guest, GET_INFO, iter([(_INFO.size, b"")]))
        _, _, services = _INFO.unpack(info)
        if services < _MANY or not module_uses.are_of(guest.read_file(MODULES), services):
            return None
        # One entry more shows that there are not more by now.
        entries = listed(guest, services + 1)
    except KernelError:
        # The agent of this guest, or its kernel, is too old.
        return None
    if not entries or not entries.pop().is_empty or entries[-1].is_empty:
        return None
    return None if statistics and not all(entry.is_exact for entry in entries) else entries
