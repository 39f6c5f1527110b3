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


class _Place(NamedTuple):
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
    place = _place(before)
    if place is None:
        return []
    prefix = ""
    option = place.option
    if option is None and not place.options_end and typed.startswith("--") and "=" in typed:
        name, _, typed = typed.partition("=")
        prefix = f"{name}="
        option = _named(_options(place), name)
        if option is None or option.metavar is None:
            return []
    found = _values(option, place) if option is not None else _words(place, typed)
    if isinstance(found, str):
        return [found]
    fitting = (candidate for candidate in found if candidate.text.startswith(typed))
    lines = [f"{prefix}{candidate.text}\t{candidate.meaning}" for candidate in fitting]
    return lines[:_CANDIDATES_MAX]


def _place(before: Sequence[str]) -> _Place | None:
    """The context of the word after ``before``; None if these are invalid, or arguments of another program."""
    place = _Place(DEFAULT_ROOT, COMMANDS, 0, (), (), None, options_end=False)
    for word in before:
        following = _behind(place, word)
        if following is None:
            return None
        place = following
    command = _command(place)
    if command is not None and _takes_rest(command, len(place.operands)):
        return None
    return place


def _behind(place: _Place, word: str) -> _Place | None:
    if place.option is not None:
        root = word if place.option.name == "--root" and not place.depth else place.root
        return place._replace(option=None, root=root)
    if word.startswith("-") and word != "-" and not place.options_end:
        return _behind_option(place, word)
    command = _command(place)
    if command is not None:
        return place._replace(operands=(*place.operands, word))
    commands = tuple(command for command in place.commands if command.words[place.depth] == word)
    # Options before the command were the program's.
    return place._replace(commands=commands, depth=place.depth + 1, given=()) if commands else None


def _behind_option(place: _Place, word: str) -> _Place | None:
    if word == "--":
        return place._replace(options_end=True) if _command(place) is not None else None
    name, equals, value = word.partition("=")
    option = _named(_options(place), name)
    if option is None:
        return None
    place = place._replace(given=(*place.given, option.name))
    if option.metavar is None:
        return place
    return _behind(place._replace(option=option), value) if equals else place._replace(option=option)


def _command(place: _Place) -> Command | None:
    """The command, if its words are complete."""
    if len(place.commands) == 1 and len(place.commands[0].words) == place.depth:
        return place.commands[0]
    return None


def _options(place: _Place) -> Sequence[Option]:
    command = _command(place)
    if command is not None:
        return command.options
    return GLOBAL_OPTIONS if place.depth == 0 else ()


def _named(options: Iterable[Option], name: str) -> Option | None:
    return next((option for option in options if name in (option.name, option.short)), None)


def _takes_rest(command: Command, count: int) -> bool:
    return bool(command.operands) and command.operands[-1].endswith("...]") and count >= len(command.operands) - 2


def _words(place: _Place, typed: str) -> list[Candidate] | str:
    """The candidates for a word that is no option's value: options, words of commands, or operands."""
    if typed.startswith("-") and not place.options_end:
        options = [option for option in _options(place) if option.many or option.name not in place.given]
        names = [Candidate(option.name, option.help) for option in options]
        return [*names, Candidate("--help", "what the command does and takes")]
    command = _command(place)
    if command is None:
        return _command_words(place)
    if len(place.operands) >= len(command.operands):
        return []
    wanted = command.operands[len(place.operands)].strip("[]<>")
    if wanted in ("ID", "container-id"):
        return [] if command.words in _NEW_ID else _ids(place.root)
    if wanted == "PORT":
        return _nics(place.root, place.operands[0])
    if wanted == "SIGNAL":
        return [Candidate(name) for name in _SIGNALS]
    return FILES if wanted.endswith("FILE") else []


def _command_words(place: _Place) -> list[Candidate]:
    from kata_runtime.cli.help import GROUPS

    found: dict[str, str] = {}
    for command in place.commands:
        word = command.words[place.depth]
        is_group = len(command.words) > place.depth + 1
        found.setdefault(word, GROUPS[word] if is_group else command.summary)
    return [Candidate(word, meaning) for word, meaning in found.items()]


def _values(option: Option, place: _Place) -> list[Candidate] | str:
    if option.choices:
        return [Candidate(choice) for choice in option.choices]
    if option.metavar == "NIC" and place.commands[0].words != _NEW_NIC:
        return _nics(place.root, place.operands[0]) if place.operands else []
    if option.metavar == "ID":
        return _ids(place.root)
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
