"""Which interface of the guest's kernel is used for how many services."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import KernelError
from kata_runtime.ipvs.attributes import NOT_COUNTED
from kata_runtime.ipvs.engine import Engine
from kata_runtime.ipvs.model import Protocol, ServiceKey, ServiceSpec
from kata_runtime.ipvs.sockopt_table import ServerDetails

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kata_runtime.ipvs.engine import Head
    from kata_runtime.netlink.transport import Block, Family


class _AskedError(Exception):
    """What the guest was asked first."""


class _Guest:
    """Says what it is asked; ``options`` is how it answers a request for a socket option."""

    def __init__(self, options: Exception) -> None:
        self._options = options

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """Netlink."""
        raise _AskedError(f"netlink {family.name}, {sum(1 for _ in blocks)} blocks")

    def read_file(self, name: str) -> Iterator[bytes]:
        """A file."""
        raise _AskedError(f"file {name}")

    def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """Socket options."""
        raise self._options


_OPTIONS = _AskedError("options")
_LITTLE = ServerDetails(statistics=False, tunnels=False)
_REFUSED = KernelError("reading a socket option in the guest", errno.EOPNOTSUPP)


def _heads(count: int, family: int) -> list[Head]:
    size = 4 if family == AF_INET else 16
    keys = (ServiceKey(family, Protocol.TCP, number.to_bytes(size, "big"), 80) for number in range(count))
    return [(ServiceSpec(key, "rr", 0, 0, 0), NOT_COUNTED) for key in keys]


@pytest.mark.parametrize(
    ("count", "family", "options", "shown", "all_of_them"),
    [
        (1, AF_INET, _OPTIONS, "options", "options"),
        (2001, AF_INET, _OPTIONS, "options", "options"),
        (1, AF_INET, _REFUSED, "netlink GENERIC, 1 blocks", "netlink GENERIC, 1 blocks"),
        (2001, AF_INET, _REFUSED, "netlink GENERIC, 32 blocks", "netlink GENERIC, 32 blocks"),
        (1, AF_INET6, _OPTIONS, "file ip_vs", "netlink GENERIC, 1 blocks"),
        (2000, AF_INET6, _OPTIONS, "file ip_vs", "netlink GENERIC, 32 blocks"),
        (2001, AF_INET6, _OPTIONS, "netlink GENERIC, 32 blocks", "netlink GENERIC, 32 blocks"),
    ],
)
def test_the_way_that_is_taken(count: int, family: int, options: Exception, shown: str, all_of_them: str) -> None:
    """Socket options are for IPv4; the file, whose time grows with the square of the services, is not used above 2,000.

    Agents that know no socket options are asked by netlink.
    """
    engine = Engine(_Guest(options), 27)
    heads = _heads(count, family)
    with pytest.raises(_AskedError, match=f"^{shown}$"):
        list(engine.servers_in_file(heads, repr) or engine.servers(heads, _LITTLE, repr))
    with pytest.raises(_AskedError, match=f"^{all_of_them}$"):
        list(engine.services(heads, ServerDetails(statistics=True, tunnels=False)))
