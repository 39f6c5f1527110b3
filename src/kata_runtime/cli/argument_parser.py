"""Parses argv by the table of commands."""

from __future__ import annotations

from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS, PROGRAM, Command
from kata_runtime.errors import UsageError
from kata_runtime.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_runtime.cli.command_table import Option


class Call(NamedTuple):
    """A parsed command line; options that were not given are absent from the mappings."""

    command: Command
    settings: Mapping[str, str]
    options: Mapping[str, Sequence[str]]
    operands: Sequence[str]

    def value(self, name: str) -> str | None:
        """The value of an option that can be given once, ``""`` for a flag, None if it was not given."""
        values = self.options.get(name)
        return values[0] if values else None


class Help(NamedTuple):
    """A request for help: for a command, for a group such as ``kata-network``, or (no words) for the program."""

    words: tuple[str, ...]


class Version(NamedTuple):
    """A request for the version."""


def parse(argv: Sequence[str]) -> Call | Help | Version:
    """Parse the arguments after the program's name.

    :raise UsageError: they do not follow the grammar.
    """
    reader = _Reader(argv)
    settings: dict[str, list[str]] = {}
    while (word := reader.peek()) is not None and word.startswith("-") and word != "-":
        if word in ("-h", "--help"):
            return Help(())
        if word in ("-v", "--version"):
            return Version()
        reader.option(GLOBAL_OPTIONS, settings, "")
    command = _command(reader)
    if isinstance(command, Help):
        return command
    options: dict[str, list[str]] = {}
    operands: list[str] = []
    while (word := reader.peek()) is not None:
        if _takes_rest(command, len(operands)):
            operands += reader.rest()
        elif word == "--":
            reader.next()
            operands += reader.rest()
        elif word in ("-h", "--help"):
            return Help(command.words)
        elif word.startswith("-") and word != "-":
            reader.option(command.options, options, command.name)
        else:
            operands.append(reader.next())
    _check_operands(command, operands)
    return Call(command, {name: values[0] for name, values in settings.items()}, options, operands)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """A hint with the known word closest to a misspelt one."""
    from difflib import get_close_matches

    matches = get_close_matches(word[:64], known, n=1)
    return f"did you mean {matches[0]}?" if matches else None


class _Reader:
    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._next = 0

    def peek(self) -> str | None:
        return self._words[self._next] if self._next < len(self._words) else None

    def next(self) -> str:
        self._next += 1
        return self._words[self._next - 1]

    def rest(self) -> Sequence[str]:
        start, self._next = self._next, len(self._words)
        return self._words[start:]

    def option(self, table: Sequence[Option], found: dict[str, list[str]], command: str) -> None:
        """Parse one option, and its value if it takes one, into ``found``."""
        name, equals, value = self.next().partition("=")
        option = next((option for option in table if name == option.name or name == option.short), None)
        if option is None:
            raise _unknown_option(name, table, command)
        where = f"{command}: " if command else ""
        if option.metavar is None:
            if equals:
                raise UsageError(f"{where}{name} takes no value, not {value!a}")
        elif not equals:
            if self.peek() is None:
                raise UsageError(f"{where}{name} needs a value", hint=option.help)
            value = self.next()
        if option.choices and value not in option.choices:
            raise UsageError(f"{where}{name} is {value!a}", hint=f"it must be {' or '.join(option.choices)}")
        if option.seconds_max and not _is_seconds(value, option.seconds_max):
            raise UsageError(
                f"{where}{name} is {value!a}", hint=f"it must be a number of seconds, 0-{option.seconds_max}"
            )
        if option.name in found and not option.many:
            raise UsageError(f"{where}{option.name} is given twice", hint="give it once")
        found.setdefault(option.name, []).append(value)


def _command(reader: _Reader) -> Command | Help:
    word = reader.peek()
    if word is None:
        raise UsageError("no command is given", hint=f"{PROGRAM} --help lists the commands")
    reader.next()
    group = [command for command in COMMANDS if command.words[0] == word]
    if not group:
        hint = nearest(word, [command.words[0] for command in COMMANDS])
        raise UsageError(f"there is no command {word!a}", hint=hint or f"{PROGRAM} --help lists the commands")
    if len(group[0].words) == 1:
        return group[0]
    names = [command.words[1] for command in group]
    second = reader.peek()
    if second in ("-h", "--help"):
        return Help((word,))
    if second is None:
        raise UsageError(f"{word} needs a command", hint=f"it has {', '.join(names)}")
    reader.next()
    for command in group:
        if command.words[1] == second:
            return command
    raise UsageError(f"{word} has no command {second!a}", hint=nearest(second, names) or f"it has {', '.join(names)}")


def _unknown_option(name: str, table: Sequence[Option], command: str) -> UsageError:
    if not command:
        hint = nearest(name, [option.name for option in table])
        return UsageError(f"there is no option {name!a}", hint=hint or f"{PROGRAM} --help lists the options")
    if any(name == option.name for option in GLOBAL_OPTIONS):
        return UsageError(f"{command} has no option {name}", hint=f"it goes before the command: {PROGRAM} {name} ...")
    hint = nearest(name, [option.name for option in table])
    return UsageError(f"{command} has no option {name!a}", hint=hint or f"{PROGRAM} {command} --help lists its options")


def _is_seconds(text: str, most: int) -> bool:
    whole, _, part = text.partition(".")
    digits = whole + part
    return len(text) <= 12 and digits.isascii() and digits.isdecimal() and bool(whole) and float(text) <= most


def _takes_rest(command: Command, count: int) -> bool:
    """Whether the arguments from here on are passed to another program (``exec ID CMD [ARG...]``)."""
    return bool(command.operands) and command.operands[-1].endswith("...]") and count >= len(command.operands) - 2


def _check_operands(command: Command, operands: Sequence[str]) -> None:
    needed = [name for name in command.operands if name[0] != "["]
    if len(operands) < len(needed):
        raise UsageError(f"{command.name} lacks {needed[len(operands)]}", hint=f"usage: {command.usage}")
    if len(operands) > len(command.operands) and not _takes_rest(command, len(operands)):
        surplus = ascii(operands[len(command.operands)])
        raise UsageError(f"{command.name} does not take {surplus}", hint=f"usage: {command.usage}")
