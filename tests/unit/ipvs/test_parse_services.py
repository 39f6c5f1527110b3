"""A service and its servers that are read at once, against the same lines read one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.errors import InputError
from kata_runtime.ipvs import fast_rule_parser
from kata_runtime.ipvs.ipvsadm_grammar import parse
from kata_runtime.ipvs.model import AddServer, AddService, Forwarding, Rule
from kata_runtime.ipvs.rules import Batch, Table, outcome, parse_rules
from kata_runtime.ipvs.rules_error import RulesError

_SERVICES = ["-t 10.0.0.1:80", "-t 10.0.0.2:80", "-u [fd00::1]:53", "-f 7"]
_SERVERS = ["10.0.0.3:80", "10.0.0.4:8080 -m -w 5", "[fd00::2]:53 -m", "10.0.0.5:80 -g -w 0"]
_ODD = ["10.0.0.3:80 -r 10.0.0.3:80", "10.0.0.4:80 -x", "10.0.0.4:80\r", " 10.0.0.3:80", "web:80", "0" * 300, ""]
_ALONE = ["", "# -A -t 10.0.0.1:80", "-E -t 10.0.0.1:80 -s rr", "-D -t 10.0.0.2:80", "-C", "-a", "-A ", "-A  -t", " "]


@st.composite
def _lines(draw: st.DrawFn) -> list[str]:
    """Services and servers of some of them, in an order that is mostly that of -S, and some other lines."""
    lines: list[str] = []
    for service in draw(st.lists(st.sampled_from(_SERVICES), max_size=5)):
        lines.append(f"-A {service}" + draw(st.sampled_from([" -s rr"] * 8 + ["", " -s", " -s rr -p 300", "\r"])))
        for server in draw(st.lists(st.sampled_from(_SERVERS * 6 + _ODD), max_size=4)):
            owner = draw(st.sampled_from([service] * 12 + _SERVICES))
            lines.append(f"-a {owner} -r {server}")
        lines += draw(st.lists(st.sampled_from(_ALONE), max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    return lines


def _one_by_one(lines: list[str]) -> tuple[list[Rule], int]:
    """The rules that the grammar finds in the lines, and how many others there are."""
    rules: list[Rule] = []
    refused = 0
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            change = parse(text, forwarding=Forwarding.ROUTE)
        except InputError:
            refused += 1
            continue
        if isinstance(change, Rule):
            rules.append(change)
        else:
            refused += 1
    return rules, refused


def _read(text: str) -> Batch | str:
    """The batch, or why it is refused."""
    try:
        return parse_rules(text.encode(), "f")
    except RulesError as error:
        return str(error)


@given(_lines(), st.sampled_from(["", "\n", "\n\n"]))
def test_as_line_by_line(lines: list[str], end: str) -> None:
    """Whatever the order of lines, the rules and the number of bad lines are those of the lines one by one."""
    rules, refused = _one_by_one(lines)
    batch = _read("\n".join(lines) + end)
    if isinstance(batch, str):
        assert batch == str(RulesError("f", [], refused))
    else:
        assert (refused, len(batch.rules)) == (0, len(rules))
        assert [(type(rule), rule) for rule in batch.rules] == [(type(rule), rule) for rule in rules]
        assert batch.added == _added(batch)


def _added(batch: Batch) -> Table | None:
    """The table that the rules make if they only add, and add nothing twice."""
    if not all(isinstance(rule, AddService | AddServer) for rule in batch.rules):
        return None
    try:
        return outcome({}, batch._replace(added=None))
    except RulesError:
        return None


def test_read_at_once() -> None:
    """A service with several servers is read at once, and what another line follows is not."""
    service, servers = "-t 10.0.0.1:80 -s rr", [f"-a -t 10.0.0.1:80 -r 10.0.1.{n}:8080 -m -w {n}" for n in range(1, 20)]
    found = fast_rule_parser.read_service("\n".join([service, *servers]))
    rules = [parse(line, forwarding=Forwarding.ROUTE) for line in [f"-A {service}", *servers]]
    assert found is not None
    assert [AddService(found[0]), *(AddServer(found[0].key, server) for server in found[1])] == rules
    for other in ("-a -t 10.0.0.2:80 -r 10.0.1.1:80", "", "#"):
        assert fast_rule_parser.read_service("\n".join([service, *servers, other])) is None


def test_more_servers_than_are_remembered() -> None:
    """However many different servers a file has, each is read as it stands."""
    ends = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:80" for n in range(20_000)]
    found = fast_rule_parser.read_service("\n-a -t 10.0.0.1:80 -r ".join(["-t 10.0.0.1:80", *ends]))
    assert found is not None
    assert [server.key.text for server in found[1]] == ends
