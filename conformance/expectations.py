"""Which tests are not expected to pass, with the reason, and how a run differs from that."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, NamedTuple

from conformance.tap import FAILED, OK, SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# Of a test that depends on how fast or busy the host is.
EITHER = "ok or failed"
_RESULTS = (FAILED, SKIPPED, EITHER)
_SHOWN_LINES = 30
_SHOWN_COLUMNS = 300


class ExpectationError(ValueError):
    """The list of expected results is wrong."""


class Result(NamedTuple):
    """The result of a test of a suite."""

    suite: str
    file: str
    name: str
    outcome: str
    detail: str = ""

    @property
    def test(self) -> str:
        """File and name, as the list has them."""
        return f"{self.file}: {self.name}"


class Expectation(NamedTuple):
    """A test that is not expected to pass."""

    outcome: str
    reason: str
    passes_with_delay: bool = False


class Expectations(NamedTuple):
    """``tests`` by suite and test, others are to pass; ``left_out``: files and tests that are not run, and why."""

    tests: dict[tuple[str, str], Expectation]
    left_out: dict[str, dict[str, str]]


def load_expectations(path: Path) -> Expectations:
    """The committed list. :raise ExpectationError: it is wrong."""
    return expectations_of(tomllib.loads(path.read_text()))


def expectations_of(document: Mapping[str, Mapping[str, object]]) -> Expectations:
    """What a document says: for each suite ``left_out`` (files, reason) and ``not_ok`` (result, reason, tests,
    perhaps ``passes_with_delay``).
    """
    tests: dict[tuple[str, str], Expectation] = {}
    left_out: dict[str, dict[str, str]] = {}
    for suite, section in document.items():
        left_out[suite] = {}
        for entry in _entries(suite, section, "left_out"):
            for file in _names(suite, entry, "files"):
                left_out[suite][file] = str(entry["reason"])
        for entry in _entries(suite, section, "not_ok"):
            if entry.get("result") not in _RESULTS:
                raise ExpectationError(f"{suite}: result is {entry.get('result')!r}, none of {', '.join(_RESULTS)}")
            for test in _names(suite, entry, "tests"):
                if (suite, test) in tests:
                    raise ExpectationError(f"{suite}: {test} is named twice")
                passes = entry.get("passes_with_delay") is True
                tests[suite, test] = Expectation(str(entry["result"]), str(entry["reason"]), passes)
    return Expectations(tests, left_out)


def with_delay(expected: Expectations) -> Expectations:
    """What is expected when start and exec return later than the runtime lets them."""
    left = {test: expectation for test, expectation in expected.tests.items() if not expectation.passes_with_delay}
    return expected._replace(tests=left)


def _entries(suite: str, section: Mapping[str, object], key: str) -> list[dict[str, object]]:
    entries = section.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("reason") for entry in entries):
        raise ExpectationError(f"{suite}.{key} is no list of tables that each have a reason")
    return entries


def _names(suite: str, entry: Mapping[str, object], key: str) -> list[str]:
    names = entry.get(key)
    if not isinstance(names, list) or not names:
        raise ExpectationError(f"{suite}: an entry has no {key}")
    return [str(name) for name in names]


def differences(results: Iterable[Result], expected: Expectations, *, complete: Iterable[str] = ()) -> list[str]:
    """A line for each test that came out otherwise than expected; of the suites in ``complete`` none may be missing."""
    found = []
    seen = set()
    for result in results:
        key = (result.suite, result.test)
        if key in seen:
            found.append(f"{result.suite}: {result.test}: reported twice")
        seen.add(key)
        wanted = expected.tests.get(key, Expectation(OK, ""))
        if result.outcome not in wanted.outcome.split(" or "):
            line = f"{result.suite}: {result.test}: {result.outcome}, expected: {wanted.outcome}"
            found.append(f"{line}\n{_indented(result.detail)}" if result.detail else line)
    for suite in complete:
        missing = [test for of, test in expected.tests if of == suite and (of, test) not in seen]
        found += [f"{suite}: {test}: is listed and does not exist" for test in missing]
    return found


def _indented(text: str) -> str:
    """The end of a test's error output."""
    return "\n".join(f"    {line[:_SHOWN_COLUMNS]}" for line in text.splitlines()[-_SHOWN_LINES:])
