"""The rules of a batch, in order."""

from __future__ import annotations

from itertools import repeat

from kata_runtime.ipvs.model import AddServer, AddService, ServerSpec, ServiceSpec
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from kata_runtime.ipvs.model import Rule

    class Rules(Protocol):
        """Rules that can be counted, and read in order more than once."""

        def __len__(self) -> int: ...

        def __iter__(self) -> Iterator[Rule]: ...


class _WholeService(NamedTuple):
    """The rules that add a service and its servers."""

    spec: ServiceSpec
    servers: list[ServerSpec]


class RuleList:
    """The rules of a file.

    Those that add the servers of a service are made while they are read, which is when the guest works already: to
    make them beforehand would add a fifth to the time of parsing.
    """

    def __init__(self) -> None:
        self._parts: list[_WholeService | Rule] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Rule]:
        for part in self._parts:
            if isinstance(part, _WholeService):
                yield AddService(part.spec)
                yield from map(tuple.__new__, repeat(AddServer), zip(repeat(part.spec.key), part.servers))
            else:
                yield part

    def append(self, rule: Rule) -> None:
        """Add a rule at the end."""
        self._parts.append(rule)
        self._count += 1

    def append_service(self, spec: ServiceSpec, servers: list[ServerSpec]) -> None:
        """Add the rules of a service and its servers at the end."""
        self._parts.append(_WholeService(spec, servers))
        self._count += 1 + len(servers)
