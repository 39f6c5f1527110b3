"""The input of --restore: many rules, read and checked as a whole before any of them is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import InputError
from kata_runtime.ipvs.grammar import interpret
from kata_runtime.ipvs.model import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Forwarding,
    Rule,
    ServerKey,
    ServerWish,
    ServiceKey,
    ServiceWish,
)
from kata_runtime.ipvs.options import read_line, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINE_BYTES_MAX = 4096
_SHOWN_BYTES = 80
PROBLEMS_SHOWN = 20

# A table as wishes: what a batch is checked against and compared with.
Servers = dict[ServerKey, ServerWish]
Table = dict[ServiceKey, tuple[ServiceWish, Servers]]


class NumberedRule(NamedTuple):
    """A rule and its line, counted from 1."""

    line: int
    rule: Rule


class RulesError(InputError):
    """Lines of a batch are wrong; ``problems`` says which and how, the first ``PROBLEMS_SHOWN`` of them."""

    def __init__(self, name: str, problems: list[str], count: int) -> None:
        shown = problems[:PROBLEMS_SHOWN]
        lines = "1 line" if count == 1 else f"{count} lines"
        super().__init__(f"{lines} of {name} cannot be applied; nothing was changed")
        self.problems = shown


class _Problems:
    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: list[str] = []
        self._count = 0

    def add(self, number: int, text: str, reason: str) -> None:
        self._count += 1
        if len(self._shown) < PROBLEMS_SHOWN:
            cut = text[:_SHOWN_BYTES]
            self._shown.append(f"{self._name}, line {number}: {cut!a}: {reason}")

    def raise_any(self) -> None:
        if self._count:
            raise RulesError(self._name, self._shown, self._count)


def parse_rules(data: bytes, name: str) -> list[NumberedRule]:
    """The rules in a file called ``name``; empty lines and those that begin with # are none.

    :raise RulesError: lines that are no rules.
    """
    rules: list[NumberedRule] = []
    problems = _Problems(name)
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if len(raw) > _LINE_BYTES_MAX:
            shown = raw[:_SHOWN_BYTES].decode(errors="replace")
            problems.add(number, shown, f"it has {len(raw)} bytes, a rule at most {_LINE_BYTES_MAX}")
            continue
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError:
            problems.add(number, raw.decode(errors="replace"), "it is not UTF-8 text")
            continue
        if not text or text.startswith("#"):
            continue
        try:
            rules.append(NumberedRule(number, _rule(text)))
        except InputError as error:
            problems.add(number, text, str(error))
    problems.raise_any()
    return rules


def _rule(text: str) -> Rule:
    # In a file ipvsadm's own default holds: direct routing.
    rule = interpret(read_line(split_words(text)), Forwarding.ROUTE)
    if isinstance(rule, Rule):
        return rule
    raise InputError("only services and servers can be added, edited and deleted by a file")


def count(table: Table) -> int:
    """How many rules a table has: services and servers."""
    return len(table) + sum(len(servers) for _, servers in table.values())


def outcome(before: Table, rules: Iterable[NumberedRule], name: str, text: bytes) -> Table:
    """The table after ``rules``; ``before`` is not changed.

    :raise RulesError: a rule that the kernel would refuse: something exists already, or does not exist.
    """
    table = dict(before)
    own: set[ServiceKey] = set()  # services whose servers are our own copy
    added: dict[object, int] = {}
    refused: list[tuple[int, str]] = []
    for number, rule in rules:
        reason = _apply(table, own, added, number, rule)
        if reason:
            refused.append((number, reason))
    if refused:
        lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        problems = _Problems(name)
        for number, reason in refused:
            problems.add(number, lines[number - 1].decode().strip(), reason)
        problems.raise_any()
    return table


def _apply(table: Table, own: set[ServiceKey], added: dict[object, int], number: int, rule: Rule) -> str:
    """Carry a rule out on the model; why the kernel would refuse it, or nothing."""
    match rule:
        case AddService(wish):
            if wish.key in table:
                return f"{wish.key.words} exists already{_since(added, wish.key)}"
            table[wish.key] = (wish, {})
            own.add(wish.key)
            added[wish.key] = number
        case EditService(wish):
            if wish.key not in table:
                return f"{wish.key.words} does not exist"
            table[wish.key] = (wish, table[wish.key][1])
        case DeleteService(key):
            if table.pop(key, None) is None:
                return f"{key.words} does not exist"
        case AddServer(service, server) | EditServer(service, server):
            if service not in table:
                return f"{service.words} does not exist"
            servers = _own_servers(table, own, service)
            exists = server.key in servers
            if exists and isinstance(rule, AddServer):
                return f"{service.words} has server {server.key.text} already{_since(added, (service, server.key))}"
            if not exists and isinstance(rule, EditServer):
                return f"{service.words} has no server {server.key.text}"
            servers[server.key] = server
            added.setdefault((service, server.key), number)
        case DeleteServer(service, key):
            if service not in table:
                return f"{service.words} does not exist"
            if _own_servers(table, own, service).pop(key, None) is None:
                return f"{service.words} has no server {key.text}"
    return ""


def _own_servers(table: Table, own: set[ServiceKey], service: ServiceKey) -> Servers:
    wish, servers = table[service]
    if service not in own:
        servers = dict(servers)
        table[service] = (wish, servers)
        own.add(service)
    return servers


def _since(added: dict[object, int], what: object) -> str:
    line = added.get(what)
    return f" since line {line}" if line else ""


def difference(current: Table, wanted: Table) -> list[Rule]:
    """The rules that make ``current`` into ``wanted``: additions first, deletions last, the rest untouched."""
    additions: list[Rule] = []
    edits: list[Rule] = []
    deletions: list[Rule] = []
    for key, (wish, servers) in wanted.items():
        if key not in current:
            additions.append(AddService(wish))
            additions += [AddServer(key, server) for server in servers.values()]
            continue
        present, present_servers = current[key]
        if present != wish:
            edits.append(EditService(wish))
        for server in servers.values():
            there = present_servers.get(server.key)
            if there is None:
                additions.append(AddServer(key, server))
            elif there != server:
                edits.append(EditServer(key, server))
        deletions += [DeleteServer(key, server) for server in present_servers if server not in servers]
    deletions += [DeleteService(key) for key in current if key not in wanted]
    return additions + edits + deletions
