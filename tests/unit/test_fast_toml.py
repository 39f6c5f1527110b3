"""The plain reader of TOML agrees with tomllib, or leaves the document to it."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quality.trees import SOURCE

from kata_runtime import fast_toml

_LINES = (
    "", "  ", "# note", "[a]", "[a.b]", "[b]", "[ a ]", "[a", "[[a]]", "[a] # c", "[]", "[a.]", "b = 1", "b.c = 1",
    "a = true", 'k = "v"', 'k="v" # c', 'k = "#"', 'k = "a\\nb"', "k = 'v'", 'k = """', "n = 0", "n = 00", "n = -5",
    "n = -0", "n = +1", "n = 1_000", "n = 1.5", "n = 0x1f", "n = 123456789012345678901234567890", "k", "k =", "= 1",
    '"k" = 1', "k k = 1", "l = [1]", "t = {}", "x = \t1", "x = \"\u00e9\"", "x = 1\r", "x = TRUE", "x = 1 2", 'x = ""',
)  # fmt: skip


def _tomllib(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return str(error)


def _ours(text: str) -> object:
    try:
        return fast_toml.loads(text)
    except tomllib.TOMLDecodeError as error:
        return str(error)


@given(st.lists(st.sampled_from(_LINES)).map("\n".join))
def test_like_tomllib(text: str) -> None:
    """Documents of plain and of other lines, in any order, are what tomllib makes of them, errors included."""
    assert _ours(text) == _tomllib(text)


@given(st.text(alphabet='ab=".[]#\\ \n\t\r-019_e\u00e9'))
def test_like_tomllib_with_any_text(text: str) -> None:
    """So are other texts."""
    assert _ours(text) == _tomllib(text)


@pytest.mark.parametrize(("text", "loaded"), [('[a.b]\nk = "v"\nn = 2\nt = true\n', False), ("k = 'v'\n", True)])
def test_loads_tomllib_only_if_needed(text: str, *, loaded: bool) -> None:
    """A configuration of plain lines is read without tomllib."""
    code = "import sys; sys.path.append(sys.argv[1]); from kata_runtime import fast_toml; fast_toml.loads(sys.argv[2])"
    code += "; print('tomllib' in sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", code, str(SOURCE), text]
    assert subprocess.run(argv, capture_output=True, check=True, text=True).stdout == f"{loaded}\n"
