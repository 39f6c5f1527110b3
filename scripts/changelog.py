"""What CHANGELOG.md says of versions."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

_CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"
_HEADING = re.compile(r"^## \[(\S+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


def released(version: str) -> date:
    """Return the day of a version; raise LookupError where CHANGELOG.md has none of that name."""
    for name, day in _HEADING.findall(_CHANGELOG.read_text()):
        if name == version:
            return date.fromisoformat(day)
    raise LookupError(f"CHANGELOG.md has no version {version}")
