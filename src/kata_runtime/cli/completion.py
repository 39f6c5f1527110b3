"""Shell completion: the candidates for the last word of an incomplete command line.

The scripts in ``completion_scripts`` run this at each completion, so that all shells share one implementation.
Candidates come from the table of commands and from files below the root directory; no lock is taken, no guest is asked.
"""

from __future__ import annotations

import os

from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS, Command, Option
from kata_runtime.cli.settings import DEFAULT_ROOT
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.identity import resolve, sandbox_ids, sandbox_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Instead of candidates: the shell is to complete names of files, or of directories.
FILES = ":files"
DIRECTORIES = ":directories"

_CANDIDATES_MAX = 500
_FILE_VALUES = ("FILE", "SOCKET")
# Commands whose operand is the ID of a new container.
_NEW_ID = (("run",), ("create",))
_NEW_NIC = ("kata-network", "add-port")
_SIGNALS = ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2")


class Candidate(NamedTuple):
    """A candidate for the word, and its description."""

    text: str
    meaning: str = ""


class _Context(NamedTuple):
    """The context of the last word, from the words before it.

    ``option`` is set if the word is its value; ``commands`` are those that begin with the words before.
    """

    root: str
    commands: tuple[Command, ...]
    depth: int
    given: tuple[str, ...]
    operands: tuple[str, ...]
    option: Option | None
    options_end: bool


def complete(words: Sequence[str]) -> list[str]:
    """The lines for a shell: ``FILES``, ``DIRECTORIES``, or candidates with a tab and their meaning.

    ``words`` are those after the program's name, the last one incomplete. Without candidates the list is empty.

    :raise KataError: the root directory cannot be read.
    """
    *before, typed = words or [""]
    context = _context_after(before)
    if context is None:
        return []
    prefix = ""
    option = context.option
    if option is None and not context.options_end and typed.startswith("--") and "=" in typed:
        name, _, typed = typed.partition("=")
        prefix = f"{name}="
        option = _named(_options(context), name)
        if option is None or option.metavar is None:
            return []
    found = _values(option, context) if option is not None else _words(context, typed)
    if isinstance(found, str):
        return [found]
    fitting = (candidate for candidate in found if candidate.text.startswith(typed))
    lines = [f"{prefix}{candidate.text}\t{candidate.meaning}" for candidate in fitting]
    return lines[:_CANDIDATES_MAX]


def _context_after(before: Sequence[str]) -> _Context | None:
    """The context of the word after ``before``; None if these are invalid, or arguments of another program."""
    context = _Context(DEFAULT_ROOT, COMMANDS, 0, (), (), None, options_end=False)
    for word in before:
        following = _after_word(context, word)
        if following is None:
            return None
        context = following
    command = _command(context)
    if command is not None and _takes_rest(command, len(context.operands)):
        return None
    return context


def _after_word(context: _Context, word: str) -> _Context | None:
    if context.option is not None:
        root = word if context.option.name == "--root" and not context.depth else context.root
        return context._replace(option=None, root=root)
    if word.startswith("-") and word != "-" and not context.options_end:
        return _after_option(context, word)
    command = _command(context)
    if command is not None:
        return context._replace(operands=(*context.operands, word))
    commands = tuple(command for command in context.commands if command.words[context.depth] == word)
    # Options before the command were the program's.
    return context._replace(commands=commands, depth=context.depth + 1, given=()) if commands else None


def _after_option(context: _Context, word: str) -> _Context | None:
    if word == "--":
        return context._replace(options_end=True) if _command(context) is not None else None
    name, equals, value = word.partition("=")
    option = _named(_options(context), name)
    if option is None:
        return None
    context = context._replace(given=(*context.given, option.name))
    if option.metavar is None:
        return context
    return _after_word(context._replace(option=option), value) if equals else context._replace(option=option)


def _command(context: _Context) -> Command | None:
    """The command, if its words are complete."""
    if len(context.commands) == 1 and len(context.commands[0].words) == context.depth:
        return context.commands[0]
    return None


def _options(context: _Context) -> Sequence[Option]:
    command = _command(context)
    if command is not None:
        return command.options
    return GLOBAL_OPTIONS if context.depth == 0 else ()


def _named(options: Iterable[Option], name: str) -> Option | None:
    return next((option for option in options if name in (option.name, option.short)), None)


def _takes_rest(command: Command, count: int) -> bool:
    return bool(command.operands) and command.operands[-1].endswith("...]") and count >= len(command.operands) - 2


def _words(context: _Context, typed: str) -> list[Candidate] | str:
    """The candidates for a word that is no option's value: options, words of commands, or operands."""
    if typed.startswith("-") and not context.options_end:
        options = [option for option in _options(context) if option.many or option.name not in context.given]
        names = [Candidate(option.name, option.help) for option in options]
        return [*names, Candidate("--help", "what the command does and takes")]
    command = _command(context)
    if command is None:
        return _command_words(context)
    if len(context.operands) >= len(command.operands):
        return []
    wanted = command.operands[len(context.operands)].strip("[]<>")
    if wanted in ("ID", "container-id"):
        return [] if command.words in _NEW_ID else _ids(context.root)
    if wanted == "PORT":
        return _nics(context.root, context.operands[0])
    if wanted == "SIGNAL":
        return [Candidate(name) for name in _SIGNALS]
    return FILES if wanted.endswith("FILE") else []


def _command_words(context: _Context) -> list[Candidate]:
    from kata_runtime.cli.help import GROUPS

    found: dict[str, str] = {}
    for command in context.commands:
        word = command.words[context.depth]
        is_group = len(command.words) > context.depth + 1
        found.setdefault(word, GROUPS[word] if is_group else command.summary)
    return [Candidate(word, meaning) for word, meaning in found.items()]


def _values(option: Option, context: _Context) -> list[Candidate] | str:
    if option.choices:
        return [Candidate(choice) for choice in option.choices]
    if option.metavar == "NIC" and context.commands[0].words != _NEW_NIC:
        return _nics(context.root, context.operands[0]) if context.operands else []
    if option.metavar == "ID":
        return _ids(context.root)
    if option.metavar == "DIR":
        return DIRECTORIES
    return FILES if option.metavar in _FILE_VALUES else []


def _ids(root: str) -> list[Candidate]:
    return [Candidate(name) for name in sandbox_ids(os.path.realpath(root))]


def _nics(root: str, container: str) -> list[Candidate]:
    """The names of the NICs that kata-network added, from the record."""
    from kata_runtime.sandbox.record import load_record

    path = os.path.realpath(root)
    record = load_record(os.path.join(path, sandbox_of(path, resolve(path, container))))
    return [Candidate(nic.name, f"on {nic.device}") for nic in record.nics if not nic.carried_from]
