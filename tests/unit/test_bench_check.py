"""The comparison of measured ratios with their bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path

from bench import check


def test_worse_ratios_are_told() -> None:
    """A ratio above its bound is marked, one at its bound is not."""
    rows, worse = check.compare({"boot": {"a": 2.0, "b": 1.01}}, {"boot": {"a": 2.0, "b": 1.0}})
    assert (rows, worse) == ([["", "boot: a", "2.00", "2.00"], ["**worse**", "boot: b", "1.01", "1.00"]], 1)


def test_nothing_goes_unbounded_or_unmeasured() -> None:
    """A ratio without a bound and a bound without a ratio fail; parts that were not asked for do not."""
    rows, worse = check.compare({"boot": {"new": 1.0}}, {"boot": {"old": 1.0}, "start": {"c": 1.0}})
    assert (rows, worse) == (
        [["**worse**", "boot: new", "1.00", "none"], ["**worse**", "boot: old", "none", "1.00"]],
        2,
    )


def test_the_bounds_can_be_read() -> None:
    """The file of bounds has numbers above zero for each part of the check, and for no other."""
    bounds = tomllib.loads(Path(check.__file__).with_name("bounds.toml").read_text())
    assert sorted(bounds) == sorted(check.PARTS)
    assert [bound for part in bounds.values() for bound in part.values() if not bound > 0] == []
