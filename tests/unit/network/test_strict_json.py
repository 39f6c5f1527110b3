"""Strict JSON: one value or one line that says where it goes wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.errors import InputError
from kata_runtime.network.requests import read_nic_request, read_route_requests
from kata_runtime.network.strict_json import SIZE_LIMIT, read_json

BAD: list[tuple[bytes, str]] = [
    (b"", "the input is empty; give JSON text"),
    (b" \r\n\t", "the input is empty; give JSON text"),
    (b"\xef\xbb\xbf{}", "the input starts with a byte order mark; save it as plain UTF-8"),
    (b"\xff\xfe{\0}\0", "the input is not UTF-8: byte 1 is 0xff; give JSON text"),
    (b'{"a": "\xc3\x28"}', "the input is not UTF-8: byte 8 is 0xc3; give JSON text"),
    (b"\x7fELF\x02\x01", "the input is not JSON: expecting value at line 1 column 1"),
    (b'{"a"', "the input is not JSON: it ends too early (line 1 column 5)"),
    (b'{\n"a": "b', "the input is not JSON: it ends too early (line 2 column 6)"),
    (b"[1, 2", "the input is not JSON: it ends too early (line 1 column 6)"),
    (
        b'{"a": 1,}',
        "the input is not JSON: expecting property name enclosed in double quotes at line 1 column 9",
    ),
    (
        b"{'a': 1}",
        "the input is not JSON: expecting property name enclosed in double quotes at line 1 column 2",
    ),
    (b'"a\nb"', "the input is not JSON: invalid control character at line 1 column 3"),
    (b'"\\x"', "the input is not JSON: invalid \\escape at line 1 column 2"),
    (b"{} {}", "the input continues after its JSON value at line 1 column 4; give one value"),
    (b"{}\n\0", "the input continues after its JSON value at line 2 column 1; give one value"),
    (b'{"a":1,"a":1}', "the input has the key 'a' twice; keep one of them"),
    (b'{"x":{"a":1,"A":1}}', "the input has the key 'A' twice, the first time as 'a'; keep one of them"),
    (b"[NaN]", "the input is not JSON: NaN is not a JSON number"),
    (b"-Infinity", "the input is not JSON: -Infinity is not a JSON number"),
    (b"1" * 5000, "the input holds a number of 5000 characters; at most 32 make sense"),
    (b"0." + b"1" * 40, "the input holds a number of 42 characters; at most 32 make sense"),
    (b"1e999", "the input holds the number 1e999; no field is that large"),
    (b'"\\ud800"', "the input holds half of a surrogate pair in '\\ud800'"),
    (b'{"\\udfffx": 1}', "the input holds half of a surrogate pair in '\\udfffx'"),
    (b'["\\u0000"]', "the input holds a NUL character in '\\x00'"),
    (b"[" * 200_000, "the input nests lists or objects too deeply"),
    (b'{"a":' * 200_000, "the input nests lists or objects too deeply"),
    (b" " * (SIZE_LIMIT + 1), "the input is larger than 16 MiB"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=range(len(BAD)))
def test_bad_json(data: bytes, message: str) -> None:
    """Each way to be no JSON has its own line."""
    with pytest.raises(InputError) as raised:
        read_json(data)
    assert str(raised.value) == message


def test_escaped_pair() -> None:
    """A whole surrogate pair is one character."""
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_round_trip(value: object) -> None:
    """Whatever a JSON writer writes is read back, unless two of its keys differ in case only."""
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_anything(data: bytes) -> None:
    """Any bytes are a request or an InputError of one printable line."""
    for read in (read_nic_request, read_route_requests):
        line = ""
        try:
            read(data)
        except InputError as exc:
            line = str(exc)
        assert line.isprintable()
