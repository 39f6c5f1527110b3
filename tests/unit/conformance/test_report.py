"""The document of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.expectations import Expectation, Expectations, Result
from conformance.report import document, load_results, merged, store_results
from conformance.tap import FAILED, OK, SKIPPED

if TYPE_CHECKING:
    from pathlib import Path

_RESULTS = [
    Result("crun", "a.py", "one", OK),
    Result("crun", "a.py", "two", FAILED, "said"),
    Result("crun", "b.py", "three", SKIPPED),
    Result("crun", "b.py", "four", OK),
]


def test_every_test_has_its_place() -> None:
    """Counts, tests that are not ok under their reasons, and files that are left out."""
    expected = Expectations(
        {("crun", "a.py: two"): Expectation(FAILED, "A VM"), ("crun", "b.py: three"): Expectation(SKIPPED, "No CRIU")},
        {"crun": {"c.py": "of systemd", "d.py": "of systemd"}},
    )
    text = document(_RESULTS, expected, {"crun": "1.8.1-1"})
    assert "| crun's own tests | 1.8.1-1 | 2 | 1 | 1 |\n" in text
    assert text.endswith(
        "## crun's own tests\n\nOk: a.py 1, b.py 1.\n\n### Failed\n\nA VM:\n\n- a.py: two\n\n"
        "### Skipped\n\nNo CRIU:\n\n- b.py: three\n\n### Left out\n\n- c.py, d.py: of systemd\n"
    )


def test_a_test_that_passes_with_delay() -> None:
    """The reason of a test that passes when start returns later says so."""
    expected = Expectations({("crun", "a.py: two"): Expectation(FAILED, "Too early", passes_with_delay=True)}, {})
    text = document(_RESULTS[:2], expected, {"crun": "1.8.1-1"})
    assert "### Failed\n\nToo early (passes with DELAY=2):\n\n- a.py: two\n" in text


def test_results_of_several_runs(tmp_path: Path) -> None:
    """Stored results come back, and those of a later run take their place."""
    path = tmp_path / "results.json"
    assert load_results(path) == []
    store_results(path, _RESULTS)
    later = Result("crun", "a.py", "two", OK)
    assert merged(load_results(path), [later]) == [_RESULTS[0], later, *_RESULTS[2:]]
