"""Records the operations of a command, with their durations, for the log that --debug requests.

    with operation_log.measured("qmp", command=name, arguments=arguments) as step:
        result = ...
        step.note(result=result)

Each such step becomes one record with its fields, the seconds that it took and, when an exception ended it, ``error``.
Without a sink, that is without --debug, nothing is measured, created or imported.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    Sink = Callable[[str, Mapping[str, object]], None]

_sink: Sink | None = None


def send_to(sink: Sink | None) -> None:
    """Pass every record (the operation's name and its fields) to ``sink`` from now on; None ends that."""
    global _sink
    _sink = sink


def is_wanted() -> bool:
    """Whether records are written: check it before gathering fields that cost time."""
    return _sink is not None


def note(operation: str, /, **fields: object) -> None:
    """Record an event without a duration. Fields are JSON values; text from a guest may hold any characters."""
    if _sink is not None:
        _sink(operation, fields)


def measured(operation: str, /, **fields: object) -> Step:
    """A context manager that measures an operation; exceptions pass through it."""
    return _NOT_LOGGED if _sink is None else _Logged(operation, fields)


class Step:
    """A step of a command while it lasts; this one is not logged."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Record the end of the step."""

    def note(self, **fields: object) -> None:
        """Add fields that become known during the step."""


class _Logged(Step):
    def __init__(self, operation: str, fields: dict[str, object]) -> None:
        self._operation = operation
        self._fields = fields
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._fields["error"] = f"{type(error).__name__}: {error}"
        self._fields["seconds"] = round(time.monotonic() - self._began, 6)
        if _sink is not None:
            _sink(self._operation, self._fields)

    def note(self, **fields: object) -> None:
        self._fields.update(fields)


_NOT_LOGGED = Step()
