"""A misspelt option of ipvsadm is named with the one that was meant."""

from __future__ import annotations

import pytest

from kata_runtime.errors import InputError
from kata_runtime.ipvs.commands import read_command


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--add-servic -t 1.2.3.4:80", "option '--add-servic' is unknown to ipvsadm; did you mean --add-service?"),
        (
            "-A --tcp-servce=1.2.3.4:80",
            "option '--tcp-servce=1.2.3.4:80' is unknown to ipvsadm; did you mean --tcp-service?",
        ),
        ("-L --nosuch", "option '--nosuch' is unknown to ipvsadm"),
        (f"-L --{'x' * 60000}", f"option '--{'x' * 60000}' is unknown to ipvsadm"),
    ],
)
def test_nearest_option_is_named(words: str, error: str) -> None:
    """The closest known option is in the message, nothing where none is close, however long the word is."""
    with pytest.raises(InputError) as caught:
        read_command(words)
    assert str(caught.value) == error
