"""Documents that promise something name the test that shows it: that test is there."""

from __future__ import annotations

import ast
import re

import pytest
from tests.quality.trees import ROOT, tree

_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("document", ["docs/failure-modes.md", "docs/support.md", "docs/threat-model.md"])
def test_named_tests_exist(document: str) -> None:
    """Each test file and function that the document names exists, and it names some."""
    named = _NAMED.findall((ROOT / document).read_text())
    missing = [f"{path}::{name}" for path, name in named if not _exists(path, name)]
    assert (missing, bool(named)) == ([], True)


def _exists(path: str, name: str) -> bool:
    if not (ROOT / path).is_file():
        return False
    functions = {node.name for node in ast.walk(tree(ROOT / path)) if isinstance(node, ast.FunctionDef)}
    return not name or name in functions
