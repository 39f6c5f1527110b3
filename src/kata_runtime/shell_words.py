"""Splits the text of an option such as ``--parameters`` into words, quoted as for a shell."""

from __future__ import annotations

from kata_runtime.errors import InputError

_LENGTH_MAX = 64 * 1024  # characters; real command lines have about a hundred


def split_words(text: str) -> list[str]:
    """The words of a command line, quoted as for a shell.

    :raise InputError: an unbalanced quote, a control character, or far too long.
    """
    if len(text) > _LENGTH_MAX:
        raise InputError(f"a command line of {len(text)} characters", hint=f"at most {_LENGTH_MAX} are possible")
    if not text.isprintable() and not text.replace("\t", " ").replace("\n", " ").isprintable():
        raise InputError("the command line holds control characters")
    if not any(character in text for character in "'\"\\"):
        return text.split()
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"the command line cannot be split into words: {str(error).lower()}") from error
