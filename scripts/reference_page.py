"""Write docs/reference.md from the table of commands, the texts of --help and the configuration file of the package."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kata_runtime.cli import manual_texts
from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS, Command, Option
from kata_runtime.cli.help import DETAILS, GROUPS
from kata_runtime.cli.help_paragraphs import parts_of, sentence
from kata_runtime.sandbox.config import CHOICES, DEFAULT_PATH, RANGES, SECTIONS, Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs/reference.md"
_CONFIGURATION = _ROOT / "packaging/configuration.toml"
_KEY = re.compile(r"^# (\w+) = (\".*?\"|\S+)(?: +# (.+))?$", re.MULTILINE)
_HEAD = """\
# Reference

Every command, option and configuration key. `make reference` writes this page from what `--help` and the manual pages
are made of. Examples with their output are in the [README](../README.md) and in the pages that it lists.
"""


def page() -> str:
    """Return the page."""
    lines = [_HEAD, *_contents(), "## Command line", "", "`kata-runtime [OPTION...] COMMAND [ARGUMENT...]`", ""]
    for paragraph in parts_of(manual_texts.DESCRIPTION):
        lines += [*_markdown(paragraph), ""]
    lines += ["Global options stand before the command:", "", *_options(GLOBAL_OPTIONS)]
    for word in dict.fromkeys(command.words[0] for command in COMMANDS):
        members = [command for command in COMMANDS if command.words[0] == word]
        if word in GROUPS:
            lines += [f"## {word}", "", _escaped(sentence(GROUPS[word])), ""]
        for command in members:
            lines += _command(command, "###" if word in GROUPS else "##")
    lines += ["## Exit status", "", *_pairs("exit status", manual_texts.EXIT_STATUS)]
    lines += [
        "`exec`, and `run --bundle` in the foreground, end with the status of the program that ran in the container.",
        "",
    ]
    lines += _configuration(_CONFIGURATION.read_text())
    lines += ["## Environment variables", "", *_pairs("variable", manual_texts.ENVIRONMENT)]
    lines += ["## Files", "", *_pairs("path", manual_texts.FILES)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _contents() -> list[str]:
    groups: dict[str, list[str]] = {}
    for command in COMMANDS:
        link = f"[{command.name}](#{command.name.replace(' ', '-')})"
        groups.setdefault(command.words[0] if command.words[0] in GROUPS else "", []).append(link)
    lines = [f"- {', '.join(links)}" for links in groups.values()]
    others = ("Exit status", "Configuration", "Environment variables", "Files")
    links = [f"[{name}](#{name.lower().replace(' ', '-')})" for name in others]
    return [*lines, f"- {', '.join(links)}", ""]


def _command(command: Command, level: str) -> list[str]:
    lines = [f"{level} {command.name}", "", "```text", *_wrapped(command.usage), "```", ""]
    lines += [_escaped(sentence(command.summary)), ""]
    for paragraph in parts_of(DETAILS.get(command.name, "")) if command.name in DETAILS else ():
        lines += [*_markdown(paragraph), ""]
    return lines + (_options(command.options) if command.options else [])


def _wrapped(usage: str) -> list[str]:
    """The usage on lines of at most 100 characters, broken before options and operands alone."""
    lines: list[str] = []
    for part in re.findall(r"\[[^\]]*\](?:\.\.\.)?|\S+", usage):
        if lines and len(lines[-1]) + len(part) < 100:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}" if lines else part)
    return lines


def _markdown(parts: Sequence[tuple[bool, list[str]]]) -> list[str]:
    lines: list[str] = []
    for is_literal, text in parts:
        lines += [""] if lines else []
        lines += ["```text", *text, "```"] if is_literal else [_escaped(line) for line in text]
    return lines


def _options(options: Iterable[Option]) -> list[str]:
    rows = [(", ".join(f"`{name}`" for name in _names(option)), _escaped(option.help)) for option in options]
    return _table(("option", "meaning"), rows)


def _names(option: Option) -> list[str]:
    long = f"{option.name} {option.metavar}" if option.metavar else option.name
    return [option.short, long] if option.short else [long]


def _pairs(name: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    return _table((name, "meaning"), [(f"`{key}`", _escaped(meaning)) for key, meaning in pairs])


def _configuration(text: str) -> list[str]:
    """Tables of the keys of each section; raise LookupError when the file lacks a key or what it means."""
    described = {key: (default, meaning) for key, default, meaning in _KEY.findall(text) if meaning}
    lines = ["## Configuration", "", f"`{DEFAULT_PATH}`, or the file that `--kata-config` or `KATA_CONF_FILE` names."]
    lines += ["Unknown keys and sections are ignored with a warning; a wrong value is an error.", ""]
    for section, keys in SECTIONS.items():
        lines += [f"### [{'.'.join(section)}]", ""]
        rows = [(f"`{key}`", f"`{described[key][0]}`", _values(key), _escaped(described[key][1])) for key in keys]
        lines += _table(("key", "default", "values", "meaning"), rows)
    return lines


def _values(key: str) -> str:
    if key in RANGES:
        return "{} to {}".format(*RANGES[key])
    if key in CHOICES:
        return ", ".join(f"`{choice}`" for choice in CHOICES[key])
    return {str: "text", bool: "`true`, `false`", int: "number"}[type(Config._field_defaults[key])]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return [*lines, ""]


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def main() -> int:
    """Return the exit status."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
