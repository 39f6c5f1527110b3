"""A decoder or parser to be fed anything: what it may raise, and how inputs of several parts are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kata_runtime.errors import KataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kata_runtime.netlink.transport import Block, Family

_LENGTH_BYTES = 2


class Target(NamedTuple):
    """``feed`` takes any bytes and returns, or raises a KataError."""

    name: str
    feed: Callable[[bytes], object]

    def run(self, data: bytes) -> None:
        """Feed it; whatever else than a KataError comes out is a defect."""
        try:
            self.feed(data)
        except KataError as error:
            # The one line that a user would read is made here, too.
            str(error)


def parts(data: bytes) -> Iterator[bytes]:
    """The parts of an input, each behind its length; the last may be shorter."""
    while len(data) >= _LENGTH_BYTES:
        length = int.from_bytes(data[:_LENGTH_BYTES], "big")
        yield data[_LENGTH_BYTES : _LENGTH_BYTES + length]
        data = data[_LENGTH_BYTES + length :]


def joined(pieces: Iterable[bytes]) -> bytes:
    """The input that has these parts."""
    return b"".join(len(piece).to_bytes(_LENGTH_BYTES, "big") + piece for piece in pieces)


class ScriptedKernel:
    """A kernel that answers whatever it is asked with the next of ``answers``, then with nothing."""

    def __init__(self, answers: Iterable[bytes]) -> None:
        self._answers = iter(answers)

    def exchange(self, family: Family, blocks: Iterable[Block]) -> Iterator[bytes]:
        """One answer for each block."""
        for _ in blocks:
            yield next(self._answers, b"")

    def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """One answer, whatever is asked, in two pieces."""
        for _ in asked:
            pass
        return self.read_file(str(number))

    def read_file(self, name: str) -> Iterator[bytes]:
        """A file in two pieces."""
        content = next(self._answers, b"")
        middle = len(content) // 2
        yield content[:middle]
        yield content[middle:]


def check_line(text: str) -> None:
    """What a guest chose and a user sees must be text that commands no terminal."""
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
