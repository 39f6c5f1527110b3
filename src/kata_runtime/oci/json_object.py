"""Typed access to a JSON document; errors about values of a wrong type name their path in the document."""

from __future__ import annotations

from kata_runtime import fast_json
from kata_runtime.errors import HostError, InputError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

SIZE_LIMIT = 16 * 1024 * 1024  # bytes
_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a whole number"}


class JsonObject(NamedTuple):
    """An object in a document, and its path there, such as ``config.json: linux.resources``."""

    where: str
    fields: dict[str, object]

    def has(self, key: str) -> bool:
        """Whether the field is present and not null."""
        return self.fields.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """A string; ``default`` if it is absent or null. :raise InputError: another type."""
        value = self._value(key, str)
        return default if value is None else str(value)

    def flag(self, key: str) -> bool:
        """A boolean, false by default. :raise InputError: another type."""
        return bool(self._value(key, bool))

    def number(self, key: str, default: int = 0) -> int:
        """A whole number. :raise InputError: another type."""
        value = self._value(key, int)
        return value if isinstance(value, int) else default

    def child(self, key: str) -> JsonObject:
        """An object, empty by default. :raise InputError: another type."""
        value = self._value(key, dict)
        return JsonObject(self._name(key), value if isinstance(value, dict) else {})

    def children(self, key: str) -> list[JsonObject]:
        """A list of objects. :raise InputError: another type."""
        return [JsonObject(f"{self._name(key)}[{number}]", _checked(f"{self._name(key)}[{number}]", item, dict))
                for number, item in enumerate(self._list(key))]  # fmt: skip

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings. :raise InputError: another type."""
        return tuple(_checked(f"{self._name(key)}[{number}]", item, str) for number, item in enumerate(self._list(key)))

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers. :raise InputError: another type."""
        return tuple(_checked(f"{self._name(key)}[{number}]", item, int) for number, item in enumerate(self._list(key)))

    def text_map(self, key: str) -> dict[str, str]:
        """An object of strings. :raise InputError: another type."""
        found = self.child(key)
        return {name: found.text(name) for name in found.fields}

    def _list(self, key: str) -> list[object]:
        value = self._value(key, list)
        return value if isinstance(value, list) else []

    def _value(self, key: str, wanted: type) -> object:
        value = self.fields.get(key)
        return None if value is None else _checked(self._name(key), value, wanted)

    def _name(self, key: str) -> str:
        return f"{self.where}{'' if self.where.endswith(': ') else '.'}{key}"


def read_json_file(path: str, name: str) -> JsonObject:
    """Read a JSON file with one object; ``name`` is its name in messages.

    :raise HostError: it cannot be read. :raise InputError: it is no JSON object.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise HostError.of(f"cannot read {path}", error) from error
    return parse_json_object(data, name)


def parse_json_object(data: bytes, name: str) -> JsonObject:
    """Decode a JSON object. :raise InputError: ``data`` is none."""
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{name} is larger than {SIZE_LIMIT >> 20} MiB")
    try:
        value = fast_json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {_reason(data) or error}") from error
    if b"\\u0000" in data and _has_nul(value):
        raise InputError(
            f"{name} has a string with the character U+0000",
            hint="no path, argument or variable on Linux can contain it",
        )
    return JsonObject(f"{name}: ", _checked(name, value, dict))


def _has_nul(value: object) -> bool:
    """Whether a string in a JSON value contains U+0000."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and "\0" in item:
            return True
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
    return False


def _reason(data: bytes) -> str:
    """Why ``data`` is no JSON, with line and column; empty if ``json`` accepts it, as it does NaN."""
    import json

    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _checked(where: str, value: object, wanted: type[T]) -> T:
    # In Python bool is a subclass of int, but in JSON true is not a number.
    if type(value) is wanted:
        return value
    raise InputError(f"{where} is {str(value)[:64]!a}", field=where, hint=f"it must be {_NAMES[wanted]}")
