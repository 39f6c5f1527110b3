"""Files of rules on the model: what they say, what contradicts, what somebody else's changes do to undoing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime.errors import KernelError
from kata_runtime.ipvs.batch import _with_others
from kata_runtime.ipvs.batch_journal import Snapshot
from kata_runtime.ipvs.model import AddServer, AddService, DeleteServer, DeleteService, EditServer, EditService
from kata_runtime.ipvs.rules import Table, difference, outcome, parse_rules, touched
from kata_runtime.ipvs.rules_error import RulesError

if TYPE_CHECKING:
    from collections.abc import Container

    from kata_runtime.ipvs.model import Rule, ServiceKey


def _rules(*lines: str) -> list[Rule]:
    return list(parse_rules("\n".join(lines).encode(), "rules").rules)


def _table(*lines: str) -> Table:
    return outcome({}, parse_rules("\n".join(lines).encode(), "rules"))


def _problems(data: bytes, before: Table | None = None) -> list[str]:
    with pytest.raises(RulesError) as refusal:
        outcome(before or {}, parse_rules(data, "f"))
    return [*refusal.value.problems, str(refusal.value)]


_ONE = "1 line of f cannot be applied; nothing was changed"


def test_duplicates_far_apart() -> None:
    """A service and a server added twice are refused by the second line, which names the first."""
    service, server = "-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 1"
    lines = ["#"] * 20_000
    lines[6], lines[7], lines[18_999], lines[19_999] = service, server, service, server
    assert _problems("\n".join(lines).encode()) == [
        f"f, line 19000: '{service}': service TCP 10.0.0.1:80 exists already since line 7",
        f"f, line 20000: '{server}': service TCP 10.0.0.1:80 has server 10.0.0.2:80 already since line 8",
        "2 lines of f cannot be applied; nothing was changed",
    ]


def test_contradictions_with_the_table() -> None:
    """What is there already, or is not there, is refused without a line."""
    before = _table("-A -t 10.0.0.1:80", "-a -t 10.0.0.1:80 -r 10.0.0.2:80")
    for line, reason in {
        "-A -t 10.0.0.1:80": "service TCP 10.0.0.1:80 exists already",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80": "service TCP 10.0.0.1:80 has server 10.0.0.2:80 already",
        "-e -t 10.0.0.1:80 -r 10.0.0.3:80": "service TCP 10.0.0.1:80 has no server 10.0.0.3:80",
        "-d -t 10.0.0.1:80 -r 10.0.0.3:80": "service TCP 10.0.0.1:80 has no server 10.0.0.3:80",
        "-E -t 10.0.0.9:80": "service TCP 10.0.0.9:80 does not exist",
        "-D -t 10.0.0.9:80": "service TCP 10.0.0.9:80 does not exist",
        "-a -t 10.0.0.9:80 -r 10.0.0.2:80": "service TCP 10.0.0.9:80 does not exist",
    }.items():
        assert _problems(line.encode(), before) == [f"f, line 1: '{line}': {reason}", _ONE]
    assert before == _table("-A -t 10.0.0.1:80", "-a -t 10.0.0.1:80 -r 10.0.0.2:80")


def test_deleted_and_added_again() -> None:
    """A service that the file deletes and adds again has the servers that follow, not its previous ones."""
    before = _table("-A -t 10.0.0.1:80", "-a -t 10.0.0.1:80 -r 10.0.0.2:80")
    lines = "-D -t 10.0.0.1:80", "-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 10.0.0.3:80"
    assert outcome(before, parse_rules("\n".join(lines).encode(), "f")) == _table(*lines[1:])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"-A -t 10.0.0.1:80\x00\n", "'-A -t 10.0.0.1:80\\x00': the command line holds control characters"),
        (b"\xff\xfe\n", "'\\ufffd\\ufffd': it is not UTF-8 text"),
        (b"x" * 4097, f"'{'x' * 80}': it has 4097 characters, a rule at most 4096"),
        (
            "-A -t 10.0.0.1:80 -w é".encode(),
            "'-A -t 10.0.0.1:80 -w \\xe9': option --weight does not go with --add-service",
        ),
    ],
)
def test_lines_that_are_no_rules(data: bytes, problem: str) -> None:
    """Each is shown as far as a terminal can show it, with what is wrong."""
    assert _problems(data) == [f"f, line 1: {problem}", _ONE]


def test_a_hundred_bad_lines() -> None:
    """Twenty are shown, all are counted."""
    shown = _problems(b"junk\n" * 100)
    assert len(shown) == 21
    assert shown[-1] == "100 lines of f cannot be applied; nothing was changed"


def test_marks_and_ends() -> None:
    """A byte order mark, CRLF, comments, empty lines and a missing last newline say nothing; lines count on."""
    batch = parse_rules(b"\xef\xbb\xbf# x\r\n\r\n-A -f 1\r\n  -A -f 2 -s rr  \n\n-D -f 1", "f")
    assert batch.lines() == [3, 4, 6]
    assert list(batch.rules) == _rules("-A -f 1", "-A -f 2 -s rr", "-D -f 1")


def test_lines_of_a_large_file() -> None:
    """Behind 300 KiB of services, comments and bytes that are no text, a line has its number and its characters."""
    services = b"".join(b"-A -f %d\n-a -f %d -r 10.0.0.1\n\n# \xe2\x82\xac \xe2\n" % (n, n) for n in range(1, 8001))
    assert len(services) > 300 << 10
    batch = parse_rules(services + b"-A -f 9000 -s rr", "f")
    assert (len(batch.rules), batch.lines()[-3:]) == (16_001, [31_997, 31_998, 32_001])
    problem = "f, line 32001: '-A -f \\u20ac\\u20ac': "
    assert _problems(services + "-A -f €€".encode())[0].startswith(problem)


def test_touched_and_difference() -> None:
    """The services that rules name; additions before edits before deletions, and nothing for what stays."""
    before = _table("-A -f 1", "-a -f 1 -r 10.0.0.1", "-A -f 2", "-A -f 3", "-a -f 3 -r 10.0.0.1", "-A -f 5")
    after = _table("-A -f 1 -s rr", "-a -f 1 -r 10.0.0.2", "-A -f 4", "-A -f 3", "-a -f 3 -r 10.0.0.1 -w 9", "-A -f 5")
    rules = difference(before, after)
    assert rules == _rules(
        "-a -f 1 -r 10.0.0.2", "-A -f 4", "-E -f 1 -s rr", "-e -f 3 -r 10.0.0.1 -w 9", "-d -f 1 -r 10.0.0.1", "-D -f 2"
    )
    kinds = [AddServer, AddService, EditService, EditServer, DeleteServer, DeleteService]
    assert [type(rule) for rule in rules] == kinds
    assert {key.mark for key in touched(rules)} == {1, 2, 3, 4}


class _Engine:
    def __init__(self, table: Table) -> None:
        self._table = table

    def table(self, keys: Container[ServiceKey]) -> Table:
        """The services of ``keys``."""
        return {key: value for key, value in self._table.items() if key in keys}


def test_what_others_added_is_theirs() -> None:
    """Of a service or server that was refused as existing, what the batch did not add belongs to the previous table."""
    before = _table("-A -f 1", "-a -f 1 -r 10.0.0.1")
    changes = _rules(
        "-A -f 2", "-a -f 2 -r 10.0.0.1", "-a -f 2 -r 10.0.0.2", "-a -f 1 -r 10.0.0.2", "-a -f 1 -r 10.0.0.3"
    )
    refused = {place: KernelError("add", errno.EEXIST) for place in (0, 2, 3)}
    now = _table(
        *("-A -f 1", "-a -f 1 -r 10.0.0.1", "-a -f 1 -r 10.0.0.2 -w 7", "-a -f 1 -r 10.0.0.3"),
        *("-A -f 2 -s rr", "-a -f 2 -r 10.0.0.1", "-a -f 2 -r 10.0.0.2 -w 7", "-a -f 2 -r 10.0.0.9"),
    )
    engine: Any = _Engine(now)
    keys = frozenset(touched(changes))
    assert _with_others(engine, Snapshot(keys, before), changes, refused) == Snapshot(
        keys,
        _table(
            *("-A -f 1", "-a -f 1 -r 10.0.0.1", "-a -f 1 -r 10.0.0.2 -w 7"),
            *("-A -f 2 -s rr", "-a -f 2 -r 10.0.0.2 -w 7", "-a -f 2 -r 10.0.0.9"),
        ),
    )
    others = {0: KernelError("add", errno.ENOENT)}
    assert _with_others(engine, Snapshot(keys, before), changes, others) == Snapshot(keys, before)
