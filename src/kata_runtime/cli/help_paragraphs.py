"""Splits the help texts into paragraphs, for --help, the manual pages and docs/reference.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def parts_of(text: str) -> Iterator[list[tuple[bool, list[str]]]]:
    """Yield the parts of each paragraph as (is literal, lines); lines that begin with two blanks are literal."""
    for paragraph in text.strip("\n").split("\n\n"):
        parts: list[tuple[bool, list[str]]] = []
        for line in paragraph.split("\n"):
            is_literal = line.startswith("  ")
            if not parts or parts[-1][0] != is_literal:
                parts.append((is_literal, []))
            parts[-1][1].append(line[2:] if is_literal else line)
        yield parts


def sentence(text: str) -> str:
    """A summary as a sentence: with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
