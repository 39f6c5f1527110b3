"""The light context managers against the standard library's."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime import fast_contextlib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KINDS = pytest.mark.parametrize("library", [fast_contextlib, contextlib], ids=["light", "original"])
_RAISED = (ValueError, StopIteration, RuntimeError, KeyError, KeyboardInterrupt, GeneratorExit)


def _passing(log: list[str]) -> Iterator[str]:
    log.append("in")
    try:
        yield "given"
    finally:
        log.append("out")


def _swallowing(log: list[str]) -> Iterator[str]:
    try:
        yield "given"
    except _RAISED as error:
        log.append(repr(error))


def _replacing(_log: list[str]) -> Iterator[str]:
    try:
        yield "given"
    except _RAISED as error:
        raise KeyError("other") from error


def _failing(_log: list[str]) -> Iterator[str]:
    yield from ()


def _going_on(log: list[str]) -> Iterator[str]:
    try:
        yield "given"
    except _RAISED:
        log.append("caught")
    yield "again"


def _outcome(library: Any, function: Callable[[list[str]], Iterator[str]], error: BaseException | None) -> list[str]:
    """What the body saw, what came of the error, its cause and the functions in its traceback."""
    log: list[str] = []
    try:
        with library.contextmanager(function)(log) as given:
            log.append(given)
            if error is not None:
                raise error
    except _RAISED as raised:
        frames = [
            frame.name for frame in traceback.extract_tb(raised.__traceback__) if "fast_contextlib" not in frame[0]
        ]
        log += [repr(raised), str(raised is error), repr(raised.__cause__), *(set(frames) - {"__enter__", "__exit__"})]
    return log


@pytest.mark.parametrize("function", [_passing, _swallowing, _replacing, _failing, _going_on])
@pytest.mark.parametrize(
    "error",
    [None, ValueError("v"), StopIteration("s"), RuntimeError("r"), KeyboardInterrupt(), GeneratorExit()],
    ids=repr,
)
def test_outcomes_are_those_of_the_original(
    function: Callable[[list[str]], Iterator[str]], error: BaseException | None
) -> None:
    """Whatever body and generator do, the light one passes, replaces and swallows as contextlib does."""
    light = _outcome(fast_contextlib, function, error)
    assert light == _outcome(contextlib, function, error)


@_KINDS
def test_function_keeps_its_name(library: Any) -> None:
    """What is made bears name and documentation of the function."""

    def documented() -> Iterator[None]:
        """Words."""
        yield

    made = library.contextmanager(documented)
    assert (made.__name__, made.__doc__, made.__module__) == ("documented", "Words.", __name__)
    assert made.__wrapped__ is documented


@_KINDS
@pytest.mark.parametrize(
    ("error", "passes"), [(FileNotFoundError("gone"), False), (KeyError("k"), False), (ValueError("v"), True)], ids=repr
)
def test_suppress_takes_the_named_errors_alone(library: Any, error: Exception, passes: bool) -> None:
    """Those of the classes given, and of classes below them, end there; others pass."""
    raised = None
    try:
        with library.suppress(OSError, KeyError):
            raise error
    except ValueError as passed:
        raised = passed
    assert raised is (error if passes else None)
