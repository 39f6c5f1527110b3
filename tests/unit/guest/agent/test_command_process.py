"""Programs that the agent starts for the host."""

from __future__ import annotations

import os

import pytest

from kata_runtime.guest.agent.command_process import Command, parse_command, spawn
from kata_runtime.guest.agent.process_streams import close_all, make_pipes

_RANDOM, _FIXED = b"00000000\n", b"00040000\n"  # personality(2)


def _personality_of_a_program(*, fixed_addresses: bool) -> bytes:
    (stdin, stdout, stderr), theirs = make_pipes()
    pid = spawn(Command(["cat", "/proc/self/personality"], fixed_addresses), theirs)
    close_all([stdin, stderr, *theirs])
    assert os.waitpid(pid, 0) == (pid, 0)
    output = os.read(stdout, 4096)
    os.close(stdout)
    return output


def test_fixed_addresses_are_for_one_program() -> None:
    """Only the program for which it is requested has fixed addresses: neither the agent nor the next program."""
    kinds = [_personality_of_a_program(fixed_addresses=fixed) for fixed in (False, True, False)]
    with open("/proc/self/personality", "rb") as file:
        assert (kinds, file.read()) == ([_RANDOM, _FIXED, _RANDOM], _RANDOM)


def test_requests() -> None:
    """A command has random addresses unless its request says otherwise."""
    assert parse_command(b'{"argv": ["a", "b"]}') == Command(["a", "b"], fixed_addresses=False)
    assert parse_command(b'{"argv": ["a"], "fixed_addresses": true}') == Command(["a"], fixed_addresses=True)


@pytest.mark.parametrize("payload", [b"{", b"[]", b"{}", b'{"argv": []}', b'{"argv": "ls"}', b'{"argv": [1]}'])
def test_refused(payload: bytes) -> None:
    """A request of another shape is an error that the agent reports."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_command(payload)
