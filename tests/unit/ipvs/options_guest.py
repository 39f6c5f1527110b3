"""A guest that answers requests for socket options and files with given bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class OptionsGuest:
    """Answers with ``answers``, by the option's number, in pieces of ``size``; keeps what it was asked."""

    def __init__(self, answers: Mapping[int, bytes], size: int = 1 << 20, file: bytes = b"") -> None:
        self._answers = answers
        self._size = size
        self._file = file
        self.asked: list[tuple[int, list[tuple[int, bytes]]]] = []
        self.files: list[str] = []

    def socket_options(self, number: int, asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """The bytes of this option, whatever is asked."""
        self.asked += [(number, list(block)) for block in asked]
        return self._pieces(self._answers[number])

    def read_file(self, name: str) -> Iterator[bytes]:
        """The bytes of the file, whichever it is."""
        self.files.append(name)
        return self._pieces(self._file)

    def _pieces(self, answer: bytes) -> Iterator[bytes]:
        for start in range(0, len(answer), self._size):
            yield answer[start : start + self._size]
