"""The comparison of results with the list of those that are expected."""

from __future__ import annotations

import pytest
from conformance.expectations import (
    EITHER,
    Expectation,
    ExpectationError,
    Expectations,
    Result,
    differences,
    expectations_of,
    with_delay,
)
from conformance.tap import FAILED, OK, SKIPPED

_DOCUMENT = {
    "crun": {
        "left_out": [{"files": ["test_a.py"], "reason": "of a"}],
        "not_ok": [
            {"result": "failed", "reason": "a VM", "tests": ["test_exec.py: one", "test_exec.py: two"]},
            {"result": "skipped", "reason": "no systemd", "tests": ["test_start.py: three"]},
        ],
    }
}


def _expected() -> Expectations:
    return expectations_of(_DOCUMENT)


def test_the_list_is_read() -> None:
    """Each test of an entry has the entry's result and reason; files left out have theirs."""
    assert _expected() == Expectations(
        {
            ("crun", "test_exec.py: one"): Expectation(FAILED, "a VM"),
            ("crun", "test_exec.py: two"): Expectation(FAILED, "a VM"),
            ("crun", "test_start.py: three"): Expectation(SKIPPED, "no systemd"),
        },
        {"crun": {"test_a.py": "of a"}},
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"result": "ok", "reason": "a", "tests": ["b"]},
            "crun: result is 'ok', none of failed, skipped, ok or failed",
        ),
        (
            {"result": "failed", "reason": "", "tests": ["b"]},
            "crun.not_ok is no list of tables that each have a reason",
        ),
        ({"result": "failed", "reason": "a"}, "crun: an entry has no tests"),
        ({"result": "failed", "reason": "a", "tests": ["b", "b"]}, "crun: b is named twice"),
    ],
)
def test_a_wrong_list(entry: dict[str, object], message: str) -> None:
    """An entry without reason, with another result, or with a test that is named twice, is refused."""
    with pytest.raises(ExpectationError, match=f"^{message}$"):
        expectations_of({"crun": {"not_ok": [entry]}})


def test_as_expected() -> None:
    """Tests that are not listed are to pass, the others to end as listed."""
    results = [
        Result("crun", "test_exec.py", "one", FAILED, "refused"),
        Result("crun", "test_exec.py", "two", FAILED),
        Result("crun", "test_start.py", "three", SKIPPED),
        Result("crun", "test_start.py", "four", OK),
    ]
    assert differences(results, _expected(), complete=["crun"]) == []


def test_a_test_that_depends_on_the_host() -> None:
    """A test of which both is expected may pass and may fail, and may not be skipped."""
    entry = {"result": EITHER, "reason": "slow", "tests": ["a.py: one"]}
    expected = expectations_of({"crun": {"not_ok": [entry]}})
    found = [differences([Result("crun", "a.py", "one", outcome)], expected) for outcome in (OK, FAILED, SKIPPED)]
    assert found == [[], [], ["crun: a.py: one: skipped, expected: ok or failed"]]


def test_a_test_that_passes_with_delay() -> None:
    """With a delay the tests pass of which the list says so, and only those; without, both is expected."""
    entries = [
        {"result": EITHER, "reason": "early", "tests": ["a.py: one"], "passes_with_delay": True},
        {"result": EITHER, "reason": "slow", "tests": ["a.py: two"]},
    ]
    expected = expectations_of({"crun": {"not_ok": entries}})
    results = [Result("crun", "a.py", name, FAILED) for name in ("one", "two")]
    assert differences(results, expected) == []
    assert differences(results, with_delay(expected)) == ["crun: a.py: one: failed, expected: ok"]


def test_every_difference_is_told() -> None:
    """A test that fails, that passes although listed, that comes twice, or that is missing, is a difference."""
    results = [
        Result("crun", "test_exec.py", "one", OK),
        Result("crun", "test_start.py", "four", FAILED, "first\nsecond"),
        Result("crun", "test_start.py", "five", OK),
        Result("crun", "test_start.py", "five", OK),
    ]
    assert differences(results, _expected(), complete=["crun"]) == [
        "crun: test_exec.py: one: ok, expected: failed",
        "crun: test_start.py: four: failed, expected: ok\n    first\n    second",
        "crun: test_start.py: five: reported twice",
        "crun: test_exec.py: two: is listed and does not exist",
        "crun: test_start.py: three: is listed and does not exist",
    ]


def test_part_of_a_suite() -> None:
    """Where only some tests were run the others are not missed."""
    assert differences([Result("crun", "test_exec.py", "one", FAILED)], _expected()) == []
