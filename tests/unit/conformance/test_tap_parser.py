"""The parser of what test-suites report."""

from __future__ import annotations

import pytest
from conformance.tap import FAILED, OK, SKIPPED, Point, TapError, parse


def test_results_of_crun() -> None:
    """Lines of crun's suite give name and outcome; what the tests print themselves is passed over."""
    lines = ["1..3", "{'prestart': []}", "ok 1 - exec", "ok 2 - sd-notify #SKIP", "not ok 3 - start"]
    assert parse(lines) == [Point("exec", OK), Point("sd-notify", SKIPPED), Point("start", FAILED)]


def test_results_of_bats() -> None:
    """A skipped test has its reason, a failed one the comments that follow; comments of others go."""
    lines = [
        "1..3\n",
        "# a remark of set-up\n",
        "ok 1 podman run - basic tests\n",
        "# said by a test that passed\n",
        "ok 2 podman exec # 2 # skip not for root\n",
        "not ok 3 podman kill\n",
        "# (in test file 130-kill.bats, line 8)\n",
        "#   `run_podman kill' failed\n",
    ]
    assert parse(lines) == [
        Point("podman run - basic tests", OK),
        Point("podman exec # 2", SKIPPED, "not for root"),
        Point("podman kill", FAILED, "(in test file 130-kill.bats, line 8)\n`run_podman kill' failed"),
    ]


def test_a_hash_in_a_name() -> None:
    """Only the word skip makes a directive of what follows a hash."""
    assert parse(["1..1", "ok 1 issue #3829 skipped nothing"]) == [Point("issue #3829 skipped nothing", OK)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["ok 1 - exec"], "there is no plan in the output"),
        (["1..2", "ok 1 - exec"], "2 tests were planned, 1 reported"),
        (["1..1", "ok 1 - exec", "ok 2 - exec"], "1 tests were planned, 2 reported"),
    ],
)
def test_output_that_breaks_off(lines: list[str], message: str) -> None:
    """Output without a plan, or with another number of tests, is no result."""
    with pytest.raises(TapError, match=f"^{message}$"):
        parse(lines)
