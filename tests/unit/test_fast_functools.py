"""The light ``lru_cache`` against the standard library's."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from kata_runtime import fast_functools

_KINDS = pytest.mark.parametrize("library", [fast_functools, functools], ids=["light", "original"])


def _calls(library: Any, maxsize: int | None, arguments: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The calls that reach the function, when it is called with all of ``arguments`` in turn."""
    reached: list[tuple[object, ...]] = []

    def function(*values: object) -> tuple[object, ...]:
        reached.append(values)
        return values

    cached = library.lru_cache(maxsize)(function)

    assert [cached(*values) for values in arguments] == arguments
    return reached


@pytest.mark.parametrize("maxsize", [None, 0, 1, 2, 3])
def test_the_same_calls_are_cached(maxsize: int | None) -> None:
    """The light cache calls the function for the same arguments as functools does, also when entries are evicted."""
    arguments: list[tuple[object, ...]] = [(1,), (2,), (1,), (3,), (1,), (2,), (1, 2), (), ("1",), (1.0,), (3,), ()]
    light = _calls(fast_functools, maxsize, arguments)
    assert light == _calls(functools, maxsize, arguments)


@_KINDS
def test_keyword_arguments_are_part_of_the_key(library: Any) -> None:
    """Calls with equal keyword arguments share a result; others do not."""
    reached: list[int] = []

    def function(*, number: int = 0) -> int:
        reached.append(number)
        return number

    cached = library.lru_cache(maxsize=None)(function)

    assert [cached(number=1), cached(number=2), cached(number=1), cached(), cached()] == [1, 2, 1, 0, 0]
    assert reached == [1, 2, 0]


@_KINDS
def test_function_keeps_its_name(library: Any) -> None:
    """The cached function has name, module and documentation of the original, which is its ``__wrapped__``."""

    def documented(number: int) -> int:
        """Documentation."""
        return number

    cached = library.lru_cache(maxsize=1)(documented)
    assert (cached.__name__, cached.__module__, cached.__doc__) == ("documented", __name__, "Documentation.")
    assert cached.__wrapped__ is documented


@_KINDS
def test_failures_are_not_cached(library: Any) -> None:
    """A call that raises is made again; arguments that cannot be hashed are refused before the function is called."""
    reached: list[object] = []

    def function(value: object) -> object:
        reached.append(value)
        if len(reached) == 1:
            raise ValueError(value)
        return value

    cached = library.lru_cache(maxsize=None)(function)

    with pytest.raises(ValueError, match=r"^a$"):
        cached("a")
    assert [cached("a"), cached("a")] == ["a", "a"]
    with pytest.raises(TypeError, match=r"^unhashable type: 'list'$"):
        cached([])
    assert reached == ["a", "a"]


@_KINDS
def test_cache_can_be_emptied(library: Any) -> None:
    """After cache_clear the function is called again."""
    reached: list[int] = []

    def function(number: int) -> int:
        reached.append(number)
        return number

    cached = library.lru_cache(maxsize=None)(function)

    cached(1)
    cached.cache_clear()
    cached(1)
    assert reached == [1, 1]
