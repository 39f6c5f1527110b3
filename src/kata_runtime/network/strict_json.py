"""A strict JSON reader (RFC 8259) for users' input: one value, no duplicate keys, no ambiguous text."""

from __future__ import annotations

from kata_runtime import fast_json
from kata_runtime.errors import InputError
from kata_runtime.network.request_fields import shown

SIZE_LIMIT = 16 * 1024 * 1024  # bytes
# Digits of a number. No field needs more, and the time of int() is quadratic in them.
_NUMBER_LIMIT = 32  # characters


def read_json(data: bytes) -> object:
    """The one JSON value in ``data``.

    Keys of an object must differ in more than their case, because this package ignores the case of keys.

    :raise InputError: ``data`` is not one strict JSON value in UTF-8 of at most SIZE_LIMIT bytes.
    """
    text = _decode(data)
    try:
        value = fast_json.loads(text, _DECODING)
    except ValueError as exc:
        raise _syntax_error(text) from exc
    except RecursionError as exc:
        raise InputError("the input nests lists or objects too deeply") from exc
    if "\\u" in text:
        _refuse_hostile_text(value)
    return value


def _decode(data: bytes) -> str:
    if len(data) > SIZE_LIMIT:
        raise InputError(f"the input is larger than {SIZE_LIMIT >> 20} MiB")
    if data.startswith(b"\xef\xbb\xbf"):
        raise InputError("the input starts with a byte order mark", hint="save it as plain UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        where = f"byte {exc.start + 1} is 0x{data[exc.start]:02x}"
        raise InputError(f"the input is not UTF-8: {where}", hint="give JSON text") from exc
    if not text.strip(" \t\r\n"):
        raise InputError("the input is empty", hint="give JSON text")
    return text


def _syntax_error(text: str) -> InputError:
    """The error with line and column, which the json package reports and ``fast_json`` does not."""
    import json

    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        exc = error
    else:
        return InputError("the input is not JSON")
    where = f"line {exc.lineno} column {exc.colno}"
    if exc.msg == "Extra data":
        return InputError(f"the input continues after its JSON value at {where}", hint="give one value")
    if exc.pos >= len(text.rstrip()) or exc.msg.startswith("Unterminated string"):
        return InputError(f"the input is not JSON: it ends too early ({where})")
    return InputError(f"the input is not JSON: {exc.msg[0].lower()}{exc.msg[1:].removesuffix(' at')} at {where}")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, str] = {}
    for key, _ in pairs:
        folded = key.lower()
        if folded in seen:
            first = seen[folded]
            twice = "twice" if first == key else f"twice, the first time as {shown(first)}"
            raise InputError(f"the input has the key {shown(key)} {twice}", field=key, hint="keep one of them")
        seen[folded] = key
    return dict(pairs)


def _refuse_constant(word: str) -> object:
    raise InputError(f"the input is not JSON: {word} is not a JSON number")


def _integer(digits: str) -> int:
    _check_length(digits)
    return int(digits)


def _fraction(digits: str) -> float:
    _check_length(digits)
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise InputError(f"the input holds the number {digits}", hint="no field is that large")
    return number


def _check_length(digits: str) -> None:
    if len(digits) > _NUMBER_LIMIT:
        message = f"the input holds a number of {len(digits)} characters"
        raise InputError(message, hint=f"at most {_NUMBER_LIMIT} make sense")


_DECODING = fast_json.Decoding(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_refuse_constant
)


def _refuse_hostile_text(value: object) -> None:
    """Refuse lone surrogates (RFC 8259, section 8.2), which UTF-8 cannot encode, and NUL, which ends strings in C."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str):
            if "\0" in item:
                raise InputError(f"the input holds a NUL character in {shown(item)}")
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise InputError(f"the input holds half of a surrogate pair in {shown(item)}")
