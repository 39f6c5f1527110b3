"""Trees and tables rendered by Rich, with colour only on a terminal, and with control characters escaped.

Import it after ``optional_packages.require(RICH)``.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kata_runtime.cli.streams import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

# Without a terminal no line is cut or wrapped.
_UNLIMITED = 10_000


def is_terminal() -> bool:
    """Whether standard output is a terminal that supports control sequences."""
    return os.isatty(1) and os.environ.get("TERM", "dumb") not in ("", "dumb")


def rendered(what: RenderableType) -> str:
    """The lines to print of a tree or table; with colour on a terminal unless NO_COLOR is set."""
    terminal = is_terminal()
    size = os.get_terminal_size(1) if terminal else os.terminal_size((_UNLIMITED, 25))
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        no_color=bool(os.environ.get("NO_COLOR")),
        width=size.columns or 80,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(what)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def plain(text: str, style: str = "") -> Text:
    """Text without markup, in which line breaks and control characters are escaped."""
    return Text(one_line(text), style=style)


def joined(*parts: tuple[str, str]) -> Text:
    """One line from pairs of text and style."""
    return Text.assemble(*((one_line(text), style) for text, style in parts))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table as lines; the columns ``right`` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(plain, row))
    return rendered(made)
