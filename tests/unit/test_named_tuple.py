"""The light NamedTuple against the standard library's."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from kata_runtime import named_tuple


class Light(named_tuple.NamedTuple):
    """A documented one."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        """Twice the first."""
        return self.first * 2

    def renamed(self, second: str) -> Light:
        """With another second."""
        return self._replace(second=second)


class Original(typing.NamedTuple):
    """A documented one."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "arguments", [((1,), {}), ((1, "a"), {}), ((), {"first": 3, "third": (4,)}), ((1, "a", (2, 3)), {})], ids=repr
)
def test_values_are_those_of_the_original(arguments: tuple[tuple[typing.Any, ...], dict[str, typing.Any]]) -> None:
    """Calls, fields, text, dictionaries, comparison and hashes are the original's."""
    light, original = Light(*arguments[0], **arguments[1]), Original(*arguments[0], **arguments[1])
    assert tuple(light) == tuple(original)
    assert light == tuple(original)
    assert hash(light) == hash(original)
    assert repr(light) == repr(original).replace("Original", "Light")
    assert light._asdict() == original._asdict()
    assert Light._make(original) == light
    assert (light.first, light.second, light.third) == (original.first, original.second, original.third)
    assert tuple(light._replace(first=9)) == tuple(original._replace(first=9))
    assert pickle.loads(pickle.dumps(light)) == light


class Functional(named_tuple.NamedTuple("_Functional", [("index", int), ("count", str)])):
    """Fields with the names of methods of tuples."""

    __slots__ = ()


def test_functional_form() -> None:
    """The functional form makes a class whose fields may be called as methods of tuples are."""
    made = Functional(1, "a")
    assert (made.index, made.count, tuple(made), repr(made)) == (1, "a", (1, "a"), "Functional(index=1, count='a')")
    assert made._replace(index=2) == (2, "a")


def test_no_fields() -> None:
    """A class without fields has one value."""

    class Empty(named_tuple.NamedTuple):
        """Nothing."""

    assert (tuple(Empty()), repr(Empty()), Empty._fields) == ((), "Empty()", ())
    with pytest.raises(TypeError):
        typing.cast("typing.Any", Empty)(1)


def test_classes_are_described_as_the_original() -> None:
    """Fields, defaults, match arguments and documentation are the original's."""
    for name in ("_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__"):
        assert getattr(Light, name) == getattr(Original, name)
    assert (Light(4).doubled, Light(4).renamed("x")) == (8, Light(4, "x"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda made: made(),
        lambda made: made(1, "a", (), 4),
        lambda made: made(1, fourth=1),
        lambda made: made._make([1]),
        lambda made: made(1).__setattr__("first", 2),
        lambda made: made(1).__setattr__("other", 2),
    ],
    ids=["missing", "surplus", "unknown", "short", "assigned", "added"],
)
def test_misuse_is_refused(wrong: typing.Callable[[typing.Any], object]) -> None:
    """What the original refuses is refused with the same kind of error."""
    for made in (Light, Original):
        with pytest.raises((TypeError, AttributeError)):
            wrong(made)


def test_typing_is_not_loaded() -> None:
    """Making a class loads neither typing nor collections nor the regular expressions."""
    source = Path(named_tuple.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(source)!r}); from kata_runtime.named_tuple import NamedTuple;"
        " exec('class A(NamedTuple):\\n  a: int'); print({'typing', 'collections', 're', 'enum'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
