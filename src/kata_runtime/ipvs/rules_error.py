"""The error of a batch of rules; a module of its own, for callers that load the rest while the guest works."""

from __future__ import annotations

from kata_runtime.errors import InputError


class RulesError(InputError):
    """Lines of a batch are wrong; ``problems`` says which and how, the first of them."""

    def __init__(self, name: str, problems: list[str], count: int) -> None:
        lines = "1 line" if count == 1 else f"{count} lines"
        super().__init__(f"{lines} of {name} cannot be applied; nothing was changed")
        self.problems = problems
