"""The input of --restore: parses many rules and checks them as a whole before any of them is applied."""

from __future__ import annotations

from _operator import itemgetter
from itertools import chain, islice

from kata_runtime.errors import InputError
from kata_runtime.ipvs import fast_rule_parser
from kata_runtime.ipvs.ipvsadm_grammar import parse
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
    ServerSpec,
    ServiceKey,
    ServiceSpec,
)
from kata_runtime.ipvs.rule_list import RuleList
from kata_runtime.ipvs.rules_error import RulesError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import NoReturn

    from kata_runtime.ipvs.rule_list import Rules

_LINE_MAX = 4096  # characters
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS = 80
_STRETCH = 64 * 1024  # bytes
_FIRST_STRETCHES = 4
_NEW_SERVICE = "\n-A "
_key = itemgetter(0)  # of a server: in C, since there are tens of thousands
PROBLEMS_SHOWN = 20

# A table as specs: what a batch is checked against and compared with.
Servers = dict[ServerKey, ServerSpec]
Table = dict[ServiceKey, tuple[ServiceSpec, Servers]]


class Batch(NamedTuple):
    """The rules of a file called ``name``, one on each line that is neither empty nor a comment.

    ``added`` is the table that they make of an empty one if they only add services, and servers to these, and nothing
    twice; else None.
    """

    name: str
    data: bytes
    rules: Rules
    added: Table | None = None

    def lines(self) -> list[int]:
        """The line of each rule, counted from 1."""
        return [number for number, line in _numbered(self.data) if not _is_blank(line)]

    def services(self) -> set[ServiceKey]:
        """The services that the rules name."""
        return touched(self.rules) if self.added is None else set(self.added)

    def refuse(self, reasons: Sequence[tuple[int, str]]) -> NoReturn:
        """Refuse the batch for the rules of these places, in their order.

        :raise RulesError: in any case.
        """
        lines = self.lines()
        numbers = [lines[place] for place, _ in reasons]
        shown = set(numbers[:PROBLEMS_SHOWN])
        texts = {number: text for number, text in _numbered(self.data) if number in shown}
        problems = _Problems(self.name)
        for number, (_, reason) in zip(numbers, reasons, strict=True):
            problems.add(number, texts.get(number, "").strip(), reason)
        raise problems.error()


class _Problems:
    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: list[str] = []
        self.count = 0

    def add(self, number: int, text: str, reason: str) -> None:
        self.count += 1
        if len(self._shown) < PROBLEMS_SHOWN:
            cut = text[:_SHOWN_CHARACTERS].encode(errors="surrogateescape").decode(errors="replace")
            self._shown.append(f"{self._name}, line {number}: {cut!a}: {reason}")

    def error(self) -> RulesError:
        return RulesError(self._name, self._shown, self.count)


def parse_rules(data: bytes, name: str, meanwhile: Callable[[], None] | None = None) -> Batch:
    """The rules in a file called ``name``; empty lines and those that begin with # are skipped.

    ``meanwhile`` is called once, when some 5,000 rules have been parsed, or all.

    :raise RulesError: with the lines that cannot be parsed.
    """
    parser = _Parser(name)
    stretches = _stretches(data)
    for text in islice(stretches, _FIRST_STRETCHES):
        parser.parse(text)
    if meanwhile is not None:
        meanwhile()
    for text in stretches:
        parser.parse(text)
    if parser.problems.count:
        raise parser.problems.error()
    return Batch(name, data, parser.rules, parser.added)


class _Parser:
    """Collects the rules of a file, stretch by stretch."""

    def __init__(self, name: str) -> None:
        self.rules = RuleList()
        self.added: Table | None = {}
        self.problems = _Problems(name)
        self._own: set[ServiceKey] = set()  # as in ``outcome``
        self._line = 1  # the number of the next one

    def parse(self, text: str) -> None:
        """Parse the next lines, which are whole."""
        first, *services = f"\n{text}".split(_NEW_SERVICE)
        if first:
            self._parse_lines(first[1:])
        for service in services:
            found = fast_rule_parser.read_service(service)
            if found is None:
                self._parse_lines(_NEW_SERVICE[1:] + service)
            else:
                self._add(*found)

    def _add(self, spec: ServiceSpec, servers: list[ServerSpec]) -> None:
        self.rules.append_service(spec, servers)
        if self.added is not None:
            key = spec.key
            by_key = dict(zip(map(_key, servers), servers, strict=True))
            is_new = key not in self.added and len(by_key) == len(servers)
            self.added[key] = (spec, by_key)
            if not is_new:
                self.added = None
        self._line += 1 + len(servers)

    def _parse_lines(self, text: str) -> None:
        lines = text.split("\n")
        first = self._line
        self._line += len(lines)
        for number, line in enumerate(lines, first):
            try:
                rule = fast_rule_parser.read(line) or _rule(line)
            except InputError as error:
                self.problems.add(number, line[:_LINE_MAX].strip(), str(error))
                continue
            if rule is not None:
                self.rules.append(rule)
                is_addition = isinstance(rule, AddService | AddServer)
                if self.added is not None and (not is_addition or _apply(self.added, self._own, rule)):
                    self.added = None


def _numbered(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines of a file from 1 on."""
    return enumerate(chain.from_iterable(text.split("\n") for text in _stretches(data)), 1)


def _stretches(data: bytes) -> Iterator[str]:
    """Some whole lines at a time: a list of 64 MiB of empty ones would take 512 MiB."""
    view = memoryview(data)
    start = len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0
    while (end := data.find(b"\n", start + _STRETCH)) >= 0:
        yield _text(view[start:end])
        start = end + 1
    # The end of the last line begins no other one.
    yield _text(view[start:]).removesuffix("\n")


def _text(part: memoryview) -> str:
    # Where bytes are no UTF-8, surrogates mark the line.
    return str(part, "utf-8", "surrogateescape")


def _rule(line: str) -> Rule | None:
    if len(line) > _LINE_MAX:
        raise InputError(f"it has {len(line)} characters, a rule at most {_LINE_MAX}")
    if _is_blank(line):
        return None
    text = line.strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("it is not UTF-8 text") from None
    # The default forwarding of ipvsadm itself: direct routing.
    rule = fast_rule_parser.read(text) or parse(text, forwarding=Forwarding.ROUTE)
    if isinstance(rule, Rule):
        return rule
    raise InputError("only services and servers can be added, edited and deleted by a file")


def _is_blank(line: str) -> bool:
    """Whether a line is empty or a comment."""
    text = line.strip()
    return not text or text.startswith("#")


def count(table: Table) -> int:
    """How many rules a table has: services and servers."""
    return len(table) + sum(len(servers) for _, servers in table.values())


def touched(rules: Iterable[Rule]) -> set[ServiceKey]:
    """The services that rules name."""
    found: set[ServiceKey] = set()
    last = None
    for rule in rules:
        service = rule.service if type(rule) is AddServer else service_of(rule)
        # The servers of a service mostly follow each other, and the parser makes one key for all of them.
        if service is not last:
            found.add(service)
            last = service
    return found


def service_of(rule: Rule) -> ServiceKey:
    """The service that a rule names."""
    match rule:
        case AddService(spec) | EditService(spec):
            return spec.key
        case DeleteService(key):
            return key
        case AddServer(service, _) | EditServer(service, _) | DeleteServer(service, _):
            return service


def outcome(before: Table, batch: Batch) -> Table:
    """The table after a batch; ``before`` holds all services that it names, and is not changed.

    :raise RulesError: rules that the kernel would refuse: something exists already, or does not exist.
    """
    if batch.added is not None and before.keys().isdisjoint(batch.added):
        return before | batch.added
    table = dict(before)
    own: set[ServiceKey] = set()  # services whose servers are our own copy
    refused: list[tuple[int, str]] = []
    last: ServiceKey | None = None  # one of ``own``, and its servers
    servers: Servers = {}
    for place, rule in enumerate(batch.rules):
        if type(rule) is AddServer:
            # By far the most frequent rule of a large batch; the servers of a service mostly follow each other.
            service, server = rule
            if service is not last and service in own:
                last, servers = service, table[service][1]
            if service is last and server.key not in servers:
                servers[server.key] = server
                continue
        last = None
        reason = _apply(table, own, rule)
        if reason:
            refused.append((place, reason))
    if refused:
        lines = batch.lines()
        rules = list(batch.rules)
        shown = [(place, reason + _since(rules, lines, place)) for place, reason in refused[:PROBLEMS_SHOWN]]
        batch.refuse(shown + refused[PROBLEMS_SHOWN:])
    return table


def _apply(table: Table, own: set[ServiceKey], rule: Rule) -> str:
    """Apply a rule to the model; the reason why the kernel would refuse it, or an empty string."""
    match rule:
        case AddService(spec):
            if spec.key in table:
                return f"{spec.key.description} exists already"
            table[spec.key] = (spec, {})
            own.add(spec.key)
        case EditService(spec):
            if spec.key not in table:
                return f"{spec.key.description} does not exist"
            table[spec.key] = (spec, table[spec.key][1])
        case DeleteService(key):
            if table.pop(key, None) is None:
                return f"{key.description} does not exist"
            own.discard(key)
        case AddServer(service, server) | EditServer(service, server):
            if service not in table:
                return f"{service.description} does not exist"
            servers = _own_servers(table, own, service)
            exists = server.key in servers
            if exists and isinstance(rule, AddServer):
                return f"{service.description} has server {server.key.text} already"
            if not exists and isinstance(rule, EditServer):
                return f"{service.description} has no server {server.key.text}"
            servers[server.key] = server
        case DeleteServer(service, key):
            if service not in table:
                return f"{service.description} does not exist"
            if _own_servers(table, own, service).pop(key, None) is None:
                return f"{service.description} has no server {key.text}"
    return ""


def refusal(before: Table, rule: Rule) -> str:
    """The reason why the kernel would refuse one rule, or an empty string; ``before`` holds the service it names."""
    return _apply(dict(before), set(), rule)


def _own_servers(table: Table, own: set[ServiceKey], service: ServiceKey) -> Servers:
    spec, servers = table[service]
    if service not in own:
        servers = dict(servers)
        table[service] = (spec, servers)
        own.add(service)
    return servers


def _since(rules: Sequence[Rule], lines: Sequence[int], place: int) -> str:
    """For an error message: the line before ``place`` that added the same service or server."""
    rule = rules[place]
    if not isinstance(rule, AddService | AddServer):
        return ""
    for earlier in range(place - 1, -1, -1):
        other = rules[earlier]
        if type(other) is type(rule) and service_of(other) == service_of(rule) and other.spec.key == rule.spec.key:
            return f" since line {lines[earlier]}"
    return ""


def difference(current: Table, wanted: Table) -> list[Rule]:
    """The rules that make ``current`` into ``wanted``: additions first, deletions last, the rest untouched."""
    additions: list[Rule] = []
    edits: list[Rule] = []
    deletions: list[Rule] = []
    for key, (spec, servers) in wanted.items():
        if key not in current:
            additions.append(AddService(spec))
            additions += [AddServer(key, server) for server in servers.values()]
            continue
        present, present_servers = current[key]
        if present != spec:
            edits.append(EditService(spec))
        for server in servers.values():
            there = present_servers.get(server.key)
            if there is None:
                additions.append(AddServer(key, server))
            elif there != server:
                edits.append(EditServer(key, server))
        deletions += [DeleteServer(key, server) for server in present_servers if server not in servers]
    deletions += [DeleteService(key) for key in current if key not in wanted]
    return additions + edits + deletions
