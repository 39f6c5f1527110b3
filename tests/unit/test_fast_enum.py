"""The light enumerations against the standard library's."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest

from kata_runtime import fast_enum, fast_json


class LightText(fast_enum.StrEnum):
    """A documented one."""

    FIRST = "first"
    SECOND = "second one"

    @property
    def doubled(self) -> str:
        """Twice the text."""
        return f"{self}{self}"


class OriginalText(enum.StrEnum):
    """A documented one."""

    FIRST = "first"
    SECOND = "second one"


class LightNumber(fast_enum.IntEnum):
    """A documented one."""

    NONE = 0
    MANY = 16


class OriginalNumber(enum.IntEnum):
    """A documented one."""

    NONE = 0
    MANY = 16


_PAIRS = [(LightText, OriginalText, "second one"), (LightNumber, OriginalNumber, 16)]


@pytest.mark.parametrize(("light", "original", "value"), _PAIRS, ids=["StrEnum", "IntEnum"])
def test_members_are_those_of_the_original(light: Any, original: Any, value: object) -> None:
    """Order, names, values, text, formats, hashes, look-up by value and type are the original's."""
    shown = [
        [(m.name, m.value, str(m), f"{m}", f"{m:>12}", hash(m), repr(m)[-9:], json.dumps(m), bool(m)) for m in kind]
        for kind in (light, original)
    ]
    assert shown[0] == shown[1]
    member = light(value)
    assert member is light(member)
    assert member == value == original(value)
    assert isinstance(member, light)
    assert type(member) is light
    assert fast_json.dumps({member: member}) == json.dumps({original(value): original(value)}, separators=(",", ":"))
    assert {value: 1}[member] == 1


@pytest.mark.parametrize(("light", "original", "_value"), _PAIRS, ids=["StrEnum", "IntEnum"])
@pytest.mark.parametrize("wrong", ["third", 17, None, [], {}], ids=repr)
def test_unknown_values_are_refused(light: Any, original: Any, _value: object, wrong: object) -> None:
    """A value that no member has, of whatever type, is a ValueError with the original's text."""
    with pytest.raises(ValueError, match="is not a valid") as found:
        light(wrong)
    with pytest.raises(ValueError, match="is not a valid") as expected:
        original(wrong)
    assert str(found.value) == str(expected.value).replace(original.__name__, light.__name__)


def test_methods_and_matching_work() -> None:
    """Methods, properties and match statements know members."""
    assert LightText.FIRST.doubled == "firstfirst"
    assert repr(LightText.FIRST) == "<LightText.FIRST: 'first'>"
    found = []
    for text in ("first", "second one"):
        match LightText(text):
            case LightText.SECOND:
                found.append("second")
            case LightText.FIRST:
                found.append("first")
    assert found == ["first", "second"]
