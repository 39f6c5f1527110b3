"""A client of the Container Runtime Interface (CRI) with the few of its messages that the tests need.

A message is written as pairs of field number and value; numbers and meaning are those of the interface's definition
(services RuntimeService and ImageService), the encoding is that of protocol buffers, of which only varints and
length-delimited fields occur.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Value = int | str | bytes | Sequence[tuple[int, "Value"]]
    Message = Sequence[tuple[int, Value]]
    Fields = dict[int, list[int | bytes]]

_SECONDS = 180.0
_VARINT, _LENGTH_DELIMITED = 0, 2


def encode(message: Message) -> bytes:
    """A message on the wire."""
    encoded = b""
    for number, value in message:
        if isinstance(value, int):
            encoded += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
            encoded += _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data
    return encoded


def decode(data: bytes) -> Fields:
    """The fields of a message: numbers, and bytes of strings and of messages."""
    found: Fields = {}
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        value, place = _read_varint(data, place)
        if key & 7 == _LENGTH_DELIMITED:
            found.setdefault(key >> 3, []).append(data[place : place + value])
            place += value
        else:
            assert key & 7 == _VARINT, f"a field of wire type {key & 7}"
            found.setdefault(key >> 3, []).append(value)
    return found


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


class Answer:
    """A message that came back; paths of field numbers lead to values, 0 and empty where a field is absent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def _at(self, path: Sequence[int]) -> int | bytes | None:
        found: int | bytes = self._data
        for number in path:
            assert isinstance(found, bytes)
            values = decode(found).get(number)
            if values is None:
                return None
            found = values[0]
        return found

    def text(self, *path: int) -> str:
        """A string."""
        found = self._at(path) or b""
        assert isinstance(found, bytes)
        return found.decode()

    def number(self, *path: int) -> int:
        """A number, for a field that is not there 0, as the encoding has it."""
        found = self._at(path) or 0
        assert isinstance(found, int)
        return found


class Client:
    """A connection to an engine's socket."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def call(self, method: str, *message: tuple[int, Value], version: str = "v1") -> Answer:
        """What ``method`` of RuntimeService answers. :raise grpc.RpcError: it was refused."""
        asked = self._channel.unary_unary(
            f"/runtime.{version}.RuntimeService/{method}", request_serializer=encode, response_deserializer=Answer
        )
        answer = asked(message, timeout=_SECONDS)
        assert isinstance(answer, Answer)
        return answer

    def execute(self, container: str, *argv: str) -> tuple[int, str, str]:
        """Exit status and both outputs of a command in a container."""
        answer = self.call("ExecSync", (1, container), *((2, word) for word in argv), (3, 60))
        return answer.number(3), answer.text(1), answer.text(2)
