"""Errors as users read them."""

from __future__ import annotations

import errno

import pytest

from kata_runtime.errors import HostError


@pytest.mark.parametrize(
    ("error", "line", "number"),
    [
        (
            FileNotFoundError(errno.ENOENT, "whatever", "x"),
            "cannot open x: No such file or directory; make it",
            errno.ENOENT,
        ),
        (OSError("no number"), "cannot open x: no number; make it", 0),
        (TimeoutError(), "cannot open x: TimeoutError; make it", 0),
    ],
)
def test_error_of_a_system_call(error: OSError, line: str, number: int) -> None:
    """A system call's error becomes one line with the reason, also when Python gave no number."""
    made = HostError.of("cannot open x", error, hint="make it")
    assert (str(made), made.errno) == (line, number)
