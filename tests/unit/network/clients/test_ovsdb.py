"""Addresses of Open vSwitch's database. The real one is in tests/system."""

from __future__ import annotations

import pytest

from kata_runtime.errors import HostError, InputError
from kata_runtime.network.clients.ovsdb import Database

_KINDS = "is no address of Open vSwitch's database; unix:PATH, tcp:HOST:PORT and ssl:HOST:PORT are"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", f"'' {_KINDS}"),
        ("/run/db.sock", f"'/run/db.sock' {_KINDS}"),
        ("unix:", f"'unix:' {_KINDS}"),
        ("punix:/run/db.sock", f"'punix:/run/db.sock' {_KINDS}"),
        (
            f"unix:/{107 * 'a'}",
            (
                f"the socket of Open vSwitch's database '/{107 * 'a'}' has a path of more than 107 bytes; "
                "give a shorter one"
            ),
        ),
    ],
)
def test_no_address(address: str, message: str) -> None:
    """What is no address, or no possible socket, is refused with what would be one."""
    with pytest.raises(InputError) as refused:
        Database(address)
    assert str(refused.value) == message


def test_nobody_there() -> None:
    """A longest possible path where nobody listens is named."""
    with pytest.raises(HostError, match="Could not retrieve schema from unix:/a"):
        Database(f"unix:/{106 * 'a'}")
