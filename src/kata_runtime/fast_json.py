"""JSON without the ``json`` package, whose import takes longer than most commands need for their work.

``json`` imports the regular expressions; its scanner and encoder are C and need neither. They are private to
CPython (Modules/_json.c, unchanged from 3.5 to 3.13), so the package is the fallback where they are missing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers accept this; importing ``typing`` would import the regular expressions, too
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"  # RFC 8259, section 2


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


class Decoding:
    """Settings of the scanner: the attributes that it reads of a ``json.JSONDecoder``, with the same meanings."""

    strict = True
    object_hook = None

    def __init__(
        self,
        *,
        object_pairs_hook: Callable[[list[tuple[str, object]]], object] | None = None,
        parse_int: Callable[[str], object] = int,
        parse_float: Callable[[str], object] = float,
        parse_constant: Callable[[str], object] = _refuse_constant,
    ) -> None:
        self.object_pairs_hook = object_pairs_hook
        self.parse_int = parse_int
        self.parse_float = parse_float
        self.parse_constant = parse_constant


def loads(text: str, decoding: Decoding | None = None) -> Any:
    """Decode a JSON text (RFC 8259).

    :raise ValueError: it is not JSON. :raise RecursionError: it is nested too deeply.
    """
    context: Any = decoding or Decoding()
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text, **vars(context))
    stripped = text.strip(_WHITESPACE)
    try:
        value, end = make_scanner(context)(stripped, 0)
    except StopIteration as error:
        raise ValueError(f"no JSON value at character {error.value}") from None
    except SystemError:
        # Python 3.11 and 3.12 take JSONDecodeError from json.decoder, and raise SystemError where that is not loaded.
        raise ValueError("no JSON value") from None
    if end != len(stripped):
        raise ValueError(f"more than one JSON value: character {end}")
    return value


def dumps(value: object) -> str:
    """Encode as one line of JSON in ASCII, without spaces.

    :raise TypeError: JSON has no such type. :raise ValueError: the value contains itself, or is NaN or infinite.
    """
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        import json

        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    encode = make_encoder({}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
    return "".join(encode(value, 0))


def _refuse(value: object) -> object:
    raise TypeError(f"a {type(value).__name__} is no JSON value")
