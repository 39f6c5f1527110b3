"""The JSON of the command path against the standard library's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_runtime import fast_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES)
def test_values_are_written_as_json_does(value: object) -> None:
    """Every value becomes the same text as with the json package, and comes back from it."""
    text = fast_json.dumps(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert fast_json.loads(text) == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "1 2", '{"a":1} x', "NaN", "-Infinity", '"\n"', "\u00a0 1", "'a'"]
)
def test_what_is_no_json(text: str) -> None:
    """Text that is no single JSON value is a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        fast_json.loads(text)


def test_deep_nesting() -> None:
    """A text nested too deeply is a RecursionError and not a crash."""
    with pytest.raises(RecursionError):
        fast_json.loads("[" * 100_000)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, float("nan"), float("inf")], ids=repr)
def test_values_that_json_lacks(value: object) -> None:
    """What JSON cannot say is refused."""
    with pytest.raises((TypeError, ValueError)):
        fast_json.dumps(value)


def test_neither_json_nor_re_is_loaded() -> None:
    """Reading and writing load neither the json package nor the regular expressions; errors are the same without."""
    source = Path(fast_json.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(source)!r}); from kata_runtime import fast_json;"
        " fast_json.loads(fast_json.dumps({'a': [1, 'b']})); print({'json', 're'} & set(sys.modules))\n"
        "for text in ('[1,]', '{', '\"', '[}', '{1:2}', '[1 2]', '\"\\\\x\"', '', '1 1'):\n"
        "    try:\n        print(fast_json.loads(text))\n    except ValueError:\n        pass"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
