"""TAP, the format in which test-suites report (Test Anything Protocol, version 12, and what bats adds)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

OK = "ok"
SKIPPED = "skipped"
FAILED = "failed"

_PLAN = re.compile(r"1\.\.(\d+)")
_POINT = re.compile(r"(not )?ok (\d+)(?: -)?(?: (.*))?")
_DIRECTIVE = re.compile(r"\s*#\s*skip\b:?\s*(.*)", re.IGNORECASE)


class TapError(ValueError):
    """The output is not that of a suite that ran to its end."""


class Point(NamedTuple):
    """The result of one test; ``detail`` is the reason why it was skipped, or its error output."""

    name: str
    outcome: str
    detail: str = ""


def parse(lines: Iterable[str]) -> list[Point]:
    """The tests in the output of a suite, in order; lines that are no TAP are the tests' own.

    :raise TapError: there is no plan, or not as many tests as planned: the suite broke off.
    """
    planned: int | None = None
    points: list[Point] = []
    for line in lines:
        text = line.rstrip("\n")
        if plan := _PLAN.fullmatch(text.strip()):
            planned = int(plan[1])
        elif found := _POINT.fullmatch(text):
            points.append(_point(found))
        elif text.startswith("#") and points and points[-1].outcome == FAILED:
            last = points[-1]
            points[-1] = last._replace(detail=f"{last.detail}\n{text[1:].strip()}".strip())
    if planned is None:
        raise TapError("there is no plan in the output")
    if planned != len(points):
        raise TapError(f"{planned} tests were planned, {len(points)} reported")
    return points


def _point(found: re.Match[str]) -> Point:
    name = found[3] or found[2]
    directive = _DIRECTIVE.search(name)
    if directive:
        name = name[: directive.start()]
    name = name.strip()
    if found[1]:
        return Point(name, FAILED)
    return Point(name, SKIPPED, directive[1].strip()) if directive else Point(name, OK)
