"""The exception by which a signal ends a command."""

from __future__ import annotations


class Interrupted(BaseException):
    """Raised by a signal that ends the command; handlers of the exception undo the completed steps."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
