"""How a command gets hold of the sandbox it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.cli.recovery import recover
from kata_runtime.cli.settings import root_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kata_runtime.cli.grammar import Call
    from kata_runtime.sandbox.session import Session


def session_of(call: Call) -> AbstractContextManager[Session]:
    """The locked and recovered sandbox of the call's first operand.

    :raise ContainerError: unknown, ambiguous or not running.
    """
    from kata_runtime.sandbox.session import open_session

    return open_session(root_of(call), call.operands[0], recover)
