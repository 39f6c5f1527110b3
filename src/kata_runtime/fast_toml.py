"""TOML of the plain lines that most configurations consist of, without ``tomllib``.

``tomllib`` imports the regular expressions and ``typing``, which takes longer than everything else that a command does
before it starts a VM. It reads every document that has another line.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_DIGITS = frozenset("0123456789")
_INTEGER_DIGITS = 18


def loads(text: str) -> dict[str, Any]:
    """The document in ``text``, as of ``tomllib.loads``.

    :raise ValueError: it is not TOML (``tomllib.TOMLDecodeError``), or has numbers of thousands of digits.
    :raise RecursionError: its values are nested too deeply.
    """
    document = _read_plain(text)
    if document is not None:
        return document
    import tomllib

    return tomllib.loads(text)


def _read_plain(text: str) -> dict[str, Any] | None:
    """The document if each line is empty, a comment, a header such as ``[a.b]`` or ``key = value``; else None.

    Values are true, false, decimal integers and strings without escapes; keys and names are bare.
    """
    if not (text.isascii() and text.replace("\n", "").isprintable()):
        return None
    document: dict[str, Any] = {}
    table = document
    headers = set()
    for untrimmed in text.split("\n"):
        line = untrimmed.strip(" ")
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            names = tuple(line[1:-1].split("."))
            if line[-1] != "]" or names in headers:
                return None
            headers.add(names)
            table = document
            for name in names:
                inner = table.setdefault(name, {})
                if not (_is_bare(name) and isinstance(inner, dict)):
                    return None
                table = inner
            continue
        key, equals, rest = line.partition("=")
        key, value = key.strip(" "), _plain_value(rest.strip(" "))
        if not equals or not _is_bare(key) or key in table or value is None:
            return None
        table[key] = value
    return document


def _is_bare(name: str) -> bool:
    return bool(name) and _BARE.issuperset(name)


def _plain_value(text: str) -> str | int | bool | None:
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == '"':
        inner = text[1:-1]
        return None if '"' in inner or "\\" in inner else inner
    digits = text.removeprefix("-")
    if not digits or len(digits) > _INTEGER_DIGITS or not _DIGITS.issuperset(digits) or digits[0] == "0":
        return 0 if text == "0" else None
    return int(text)
