"""Format, lint, types and spelling, by the pinned tools of .venv."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TOOLS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "."],
    "types": ["mypy", "--no-error-summary"],
    "spelling": ["codespell"],
}


@pytest.mark.parametrize("tool", _TOOLS)
def test_tool_has_nothing_to_say(tool: str) -> None:
    """Each tool accepts the tree as it is."""
    name, *arguments = _TOOLS[tool]
    program = Path(sys.executable).with_name(name)
    done = subprocess.run([program, *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
