"""Write the manual pages into the directory named on the command line, from the table of commands and its texts.

One page for the program, one for each group of commands and each command outside of groups. The format is mdoc(7).
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.changelog import released

from kata_runtime import __version__
from kata_runtime.cli import manual_texts
from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS, PROGRAM, Command, Option
from kata_runtime.cli.help import DETAILS, GROUPS
from kata_runtime.cli.help_paragraphs import parts_of, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 78
_REFERENCE = re.compile(r"([a-z][\w.-]*)\(([1-9])\)")


def pages() -> dict[str, str]:
    """Return ``{file name: content}`` of all pages."""
    found = {f"{PROGRAM}.1": _main_page()}
    for word in dict.fromkeys(command.words[0] for command in COMMANDS):
        found[f"{_page_name(word)}.1"] = _group_page(word, [one for one in COMMANDS if one.words[0] == word])
    return found


def _page_name(word: str) -> str:
    return f"{PROGRAM}-{word}"


def _main_page() -> str:
    lines = [*_head(PROGRAM, manual_texts.PURPOSE), ".Sh SYNOPSIS", ".Nm", ".Op Ar option ...", ".Ar command ..."]
    lines += [".Sh DESCRIPTION", *_text(manual_texts.DESCRIPTION), ".Sh COMMANDS"]
    lines += ["Each has a page of its own.", ".Bl -tag -width Ds"]
    for word in dict.fromkeys(command.words[0] for command in COMMANDS):
        members = [command for command in COMMANDS if command.words[0] == word]
        lines += [f".It Xr {_page_name(word)} 1", *_flow(sentence(GROUPS.get(word, members[0].summary)))]
        names = ", ".join(command.words[1] for command in members if len(command.words) > 1)
        lines += _flow(f"It has {names}.") if names else []
    lines += [".El", ".Sh OPTIONS", "They stand before the command.", *_options(GLOBAL_OPTIONS)]
    lines += [".Sh ENVIRONMENT", *_list("Ev", manual_texts.ENVIRONMENT)]
    lines += [".Sh FILES", *_list("Pa", manual_texts.FILES)]
    lines += [".Sh EXIT STATUS", *_list("Li", manual_texts.EXIT_STATUS)]
    lines += [".Sh EXAMPLES", *_text(manual_texts.EXAMPLES)]
    others = {f"{_page_name(command.words[0])}(1)" for command in COMMANDS}
    return _page([*lines, *_see_also({*others, *manual_texts.SEE_ALSO})])


def _group_page(word: str, commands: Sequence[Command]) -> str:
    is_group = word in GROUPS
    lines = [*_head(_page_name(word), GROUPS[word] if is_group else commands[0].summary), ".Sh SYNOPSIS"]
    for command in commands:
        lines += _usage(command)
    lines.append(".Sh DESCRIPTION")
    for command in commands:
        lines += [f".Ss {' '.join(command.words[1:])}"] if is_group else []
        lines += _flow(sentence(command.summary))
        if command.name in DETAILS:
            lines += [".Pp", *_text(DETAILS[command.name])]
        if command.options:
            lines += [".Pp", "Options:", *_options(command.options)]
    lines.append(".Sh EXIT STATUS")
    if word == "exec":
        lines += [*_flow(manual_texts.EXIT_STATUS_OF_A_PROGRAM), "Else:"]
    lines += _list("Li", manual_texts.EXIT_STATUS)
    return _page([*lines, *_see_also({f"{PROGRAM}(1)", *(("ipvsadm(8)",) if word == "kata-ipvs" else ())})])


def _head(name: str, summary: str) -> list[str]:
    day = released(__version__)
    when = f"{day:%B} {day.day}, {day.year}"
    return [
        f'.\\" Made by scripts/manual_pages.py from the table of commands.\n.Dd {when}',
        f".Dt {name.upper()} 1", f".Os {PROGRAM} {__version__}", ".Sh NAME", f".Nm {name}", f".Nd {_escaped(summary)}",
    ]  # fmt: skip


def _usage(command: Command) -> list[str]:
    lines = [f".Nm {PROGRAM}", f".Cm {' '.join(command.words)}"]
    lines += [
        f".Op {_flag(option.short or option.name, option)}{' ...' if option.many else ''}" for option in command.options
    ]
    for operand in command.operands:
        name = operand.strip("[]<>").removesuffix("...")
        more = " ..." if "..." in operand else ""
        lines.append(f".Op Ar {name}{more}" if operand.startswith("[") else f".Ar {name}{more}")
    return lines


def _flag(name: str, option: Option) -> str:
    shown = f"Fl {name.removeprefix('-')}"
    return f"{shown} Ar {_escaped(option.metavar)}" if option.metavar else shown


def _options(options: Iterable[Option]) -> list[str]:
    lines = [".Bl -tag -width Ds"]
    for option in options:
        short = f"{_flag(option.short, option)} , " if option.short else ""
        lines += [f".It {short}{_flag(option.name, option)}", *_flow(sentence(option.help))]
    return [*lines, ".El"]


def _list(macro: str, items: Iterable[tuple[str, str]]) -> list[str]:
    lines = [".Bl -tag -width Ds"]
    for name, meaning in items:
        lines += [f".It {macro} {name}", *_flow(meaning)]
    return [*lines, ".El"]


def _see_also(references: Iterable[str]) -> list[str]:
    found = sorted((match[2], match[1]) for match in map(_REFERENCE.fullmatch, references) if match)
    shown = [f".Xr {name} {section} ," for section, name in found]
    return [".Sh SEE ALSO", *shown[:-1], shown[-1].removesuffix(" ,")]


def _text(text: str) -> list[str]:
    """Paragraphs; literal lines are shown as they are."""
    lines: list[str] = []
    for number, paragraph in enumerate(parts_of(text)):
        lines += [".Pp"] if number else []
        for is_literal, part in paragraph:
            if is_literal:
                lines += [".Bd -literal -offset indent", *map(_escaped, part), ".Ed"]
            else:
                lines += [".Pp"] if lines and lines[-1] == ".Ed" else []
                lines += _flow(" ".join(part))
    return lines


def _flow(text: str) -> list[str]:
    """Prose with each sentence on a line of its own, as mdoc(7) wants it."""
    sentences = re.split(r"(?<=[.?!:;]) +(?=[A-Z<])", text)
    wrapped = (
        textwrap.wrap(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False) for sentence in sentences
    )
    return [_escaped(line) for lines in wrapped for line in lines]


def _escaped(text: str) -> str:
    """Text that no macro and no escape sequence is read in; a minus stays one that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _page(lines: Iterable[str]) -> str:
    # A display has its own space before it.
    return "\n".join(lines).replace(".Pp\n.Bd", ".Bd") + "\n"


def main() -> int:
    """Return the exit status."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in pages().items():
        (directory / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
