"""The light context managers against the standard library's."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from kata_runtime import fast_contextlib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


def _stack_outcome(library: Any, error: BaseException | None, failing: tuple[str, ...]) -> list[object]:
    """The order of callbacks, what came of the error and the chain of contexts of what was raised."""
    log: list[object] = []

    def note(name: str, *, fails: bool) -> None:
        log.append(name)
        if fails:
            raise KeyError(name)

    try:
        with library.ExitStack() as stack:
            for name in ("first", "second", "third"):
                stack.callback(note, name, fails=name in failing)
            if error is not None:
                raise error
    except _RAISED as raised:
        link: BaseException | None = raised
        while link is not None:
            log.append(repr(link))
            # Without an error of the body the original forgets what came before.
            link = link.__context__ if error is not None else None
    return log


@pytest.mark.parametrize("error", [None, ValueError("v"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("failing", [(), ("second",), ("first", "third"), ("first", "second", "third")], ids=repr)
def test_stacks_unwind_as_the_original(error: BaseException | None, failing: tuple[str, ...]) -> None:
    """All callbacks run, the last first, whichever of them fail; errors name what they were raised during."""
    light = _stack_outcome(fast_contextlib, error, failing)
    assert light == _stack_outcome(contextlib, error, failing)


@_KINDS
def test_callbacks_move_to_another_stack(library: Any) -> None:
    """pop_all leaves nothing to the first stack; the second calls all that was registered, when it is closed."""
    log: list[str] = []
    with library.ExitStack() as stack:
        stack.callback(log.append, "moved")
        kept = stack.pop_all()
    assert log == []
    kept.close()
    kept.close()
    assert log == ["moved"]


def _mixed_outcome(library: Any, body: Callable[[list[str]], Iterator[str]], error: BaseException | None) -> list[str]:
    """What a context between two callbacks sees and does."""
    log: list[str] = []

    def note(name: str) -> None:
        log.append(name)

    try:
        with library.ExitStack() as stack:
            stack.callback(note, "first")
            log.append(stack.enter_context(library.contextmanager(body)(log)))
            stack.callback(note, "last")
            if error is not None:
                raise error
    except _RAISED as raised:
        log += [repr(raised), str(raised is error), repr(raised.__context__)]
    return log


@pytest.mark.parametrize("body", [_passing, _swallowing, _replacing])
@pytest.mark.parametrize("error", [None, ValueError("v"), KeyboardInterrupt()], ids=repr)
def test_contexts_of_stacks_are_those_of_the_original(
    body: Callable[[list[str]], Iterator[str]], error: BaseException | None
) -> None:
    """A context that was entered by a stack sees the error, swallows it or replaces it, as with contextlib."""
    light = _mixed_outcome(fast_contextlib, body, error)
    assert light == _mixed_outcome(contextlib, body, error)


def _failing_callback_outcome(library: Any) -> list[str]:
    log: list[str] = []

    def fail() -> None:
        raise KeyError("callback")

    with library.ExitStack() as stack:
        stack.callback(log.append, "first")
        stack.enter_context(library.contextmanager(_swallowing)(log))
        stack.callback(fail)
    return log


def test_a_context_swallows_the_error_of_a_callback() -> None:
    """The error of a callback that was registered later is one that a context can swallow."""
    assert _failing_callback_outcome(fast_contextlib) == _failing_callback_outcome(contextlib)


@_KINDS
@pytest.mark.parametrize("error", [None, ValueError("v")], ids=repr)
def test_closing_closes(library: Any, error: ValueError | None, tmp_path: Path) -> None:
    """What was given is the context's value, and closed at its end, whatever ended it; the error passes."""
    opened = (tmp_path / "file").open("w")
    raised = None
    try:
        with library.closing(opened) as given:
            assert (given, opened.closed) == (opened, False)
            if error is not None:
                raise error
    except ValueError as passed:
        raised = passed
    assert (raised, opened.closed) == (error, True)
