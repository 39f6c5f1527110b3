"""The words of an ipvsadm command line: which options there are, what they take, which go with which command."""

from __future__ import annotations

from kata_runtime.errors import InputError
from kata_runtime.fast_enum import StrEnum
from kata_runtime.named_tuple import NamedTuple


class Command(StrEnum):
    """The commands of ipvsadm, by their long names."""

    ADD_SERVICE = "add-service"
    EDIT_SERVICE = "edit-service"
    DELETE_SERVICE = "delete-service"
    ADD_SERVER = "add-server"
    EDIT_SERVER = "edit-server"
    DELETE_SERVER = "delete-server"
    LIST = "list"
    ZERO = "zero"
    CLEAR = "clear"
    SAVE = "save"
    RESTORE = "restore"
    SET = "set"
    START_DAEMON = "start-daemon"
    STOP_DAEMON = "stop-daemon"


class UnknownOptionError(InputError):
    """A long option that there is none of; ``field`` is its name."""

    def with_nearest(self) -> InputError:
        """The error that names the known option closest to it: half a millisecond, too long for each line of a file."""
        from difflib import get_close_matches

        known = [*_LONG_COMMANDS, *_FLAGS, *_VALUES, *_OPTIONAL]
        matches = get_close_matches((self.field or "")[:64], sorted(known), n=1)
        return InputError(self.message, field=self.field, hint=f"did you mean --{matches[0]}?") if matches else self


class Line(NamedTuple):
    """One command with the values of its options by long name; flags have an empty value."""

    command: Command
    options: dict[str, str]
    operands: list[str]


_SHORT_COMMANDS = {
    "A": Command.ADD_SERVICE, "E": Command.EDIT_SERVICE, "D": Command.DELETE_SERVICE, "C": Command.CLEAR,
    "R": Command.RESTORE, "S": Command.SAVE, "a": Command.ADD_SERVER, "e": Command.EDIT_SERVER,
    "d": Command.DELETE_SERVER, "L": Command.LIST, "l": Command.LIST, "Z": Command.ZERO,
}  # fmt: skip
_LONG_COMMANDS = {command.value: command for command in Command}
_SHORT_OPTIONS = {
    "t": "tcp-service", "u": "udp-service", "f": "fwmark-service", "s": "scheduler", "p": "persistent",
    "M": "netmask", "r": "real-server", "g": "gatewaying", "i": "ipip", "m": "masquerading", "w": "weight",
    "x": "u-threshold", "y": "l-threshold", "c": "connection", "n": "numeric", "6": "ipv6", "o": "ops",
    "b": "sched-flags",
}  # fmt: skip

SERVICE_OPTIONS = ("tcp-service", "udp-service", "sctp-service", "fwmark-service")
FORWARDING_OPTIONS = ("gatewaying", "ipip", "masquerading")
CHECKSUM_OPTIONS = ("tun-nocsum", "tun-csum", "tun-remcsum")
VIEW_OPTIONS = ("stats", "rate", "thresholds", "persistent-conn", "tun-info")
_FLAGS = {
    *FORWARDING_OPTIONS, *CHECKSUM_OPTIONS, *VIEW_OPTIONS, "connection", "timeout", "daemon", "exact", "nosort",
    "sort", "numeric", "ipv6", "ops",
}  # fmt: skip
_VALUES = {
    *SERVICE_OPTIONS, "scheduler", "netmask", "real-server", "weight", "u-threshold", "l-threshold", "sched-flags",
    "pe", "tun-type", "tun-port", "syncid", "sync-maxlen", "mcast-interface", "mcast-group", "mcast-port",
    "mcast-ttl",
}  # fmt: skip
_OPTIONAL = {"persistent"}

_OF_SERVICE = {*SERVICE_OPTIONS, "ipv6"}
_TO_MAKE_SERVICE = {*_OF_SERVICE, "scheduler", "persistent", "netmask", "ops", "pe", "sched-flags"}
_TO_MAKE_SERVER = {
    *_OF_SERVICE, *FORWARDING_OPTIONS, *CHECKSUM_OPTIONS, "real-server", "weight", "u-threshold", "l-threshold",
    "tun-type", "tun-port",
}  # fmt: skip
_ALLOWED: dict[Command, set[str]] = {
    Command.ADD_SERVICE: _TO_MAKE_SERVICE,
    Command.EDIT_SERVICE: _TO_MAKE_SERVICE,
    Command.DELETE_SERVICE: _OF_SERVICE,
    Command.ADD_SERVER: _TO_MAKE_SERVER,
    Command.EDIT_SERVER: _TO_MAKE_SERVER,
    Command.DELETE_SERVER: {*_OF_SERVICE, "real-server"},
    Command.LIST: {
        *_OF_SERVICE, *VIEW_OPTIONS, "connection", "timeout", "daemon", "exact", "nosort", "sort", "numeric",
    },
    Command.ZERO: _OF_SERVICE,
    Command.CLEAR: set(),
    Command.SAVE: {"numeric"},
    Command.RESTORE: set(),
    Command.SET: set(),
    Command.START_DAEMON: {"syncid", "sync-maxlen", "mcast-interface", "mcast-group", "mcast-port", "mcast-ttl"},
    Command.STOP_DAEMON: {"syncid"},
}  # fmt: skip
_OPERANDS = {Command.SET: 3, Command.START_DAEMON: 1, Command.STOP_DAEMON: 1}


def read_line(words: list[str]) -> Line:
    """Recognise command and options.

    :raise InputError: an unknown or repeated option, a missing value, no command or two, or an option that does
        not go with the command.
    """
    if not words:
        raise InputError("there is no ipvsadm command", hint="one such as '-L' or '-A -t 10.0.0.1:80 -s rr' is needed")
    reader = _Reader(words)
    reader.run()
    command = reader.command
    if command is None:
        raise InputError("there is no ipvsadm command among the options", hint="one such as -A, -a or -L is needed")
    for name in reader.options:
        if name not in _ALLOWED[command]:
            raise InputError(f"option --{name} does not go with --{command.value}")
    wanted = _OPERANDS.get(command, 0)
    if len(reader.operands) > wanted:
        raise InputError(f"{reader.operands[wanted]!a} is one word too many for --{command.value}")
    if len(reader.operands) < wanted:
        raise InputError(f"--{command.value} needs {wanted} value{'s' if wanted > 1 else ''}")
    return Line(command, reader.options, reader.operands)


class _Reader:
    """Goes through the words once."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._next = 0
        self.command: Command | None = None
        self.options: dict[str, str] = {}
        self.operands: list[str] = []

    def run(self) -> None:
        while self._next < len(self._words):
            word = self._words[self._next]
            self._next += 1
            if word.startswith("--") and len(word) > 2:
                self._long(word)
            elif word.startswith("-") and len(word) > 1 and not word[1:].isdigit():
                self._short(word[1:])
            elif word == "-6":
                self._short("6")
            else:
                self.operands.append(word)

    def _long(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        if name in _LONG_COMMANDS and not equals:
            self._set_command(_LONG_COMMANDS[name])
        elif name in _FLAGS and not equals:
            self._set(name, "")
        elif name in _VALUES or name in _OPTIONAL:
            self._set(name, value if equals else self._value(name))
        else:
            raise UnknownOptionError(f"option {word!a} is unknown to ipvsadm", field=name)

    def _short(self, letters: str) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _SHORT_COMMANDS:
                self._set_command(_SHORT_COMMANDS[letter])
                continue
            name = _SHORT_OPTIONS.get(letter)
            if name is None:
                raise InputError(f"option '-{letter}' is unknown to ipvsadm")
            if name in _FLAGS:
                self._set(name, "")
                continue
            self._set(name, letters.removeprefix("=") or self._value(name))
            return

    def _value(self, name: str) -> str:
        """The next word; an option whose value is optional leaves another option alone."""
        following = self._words[self._next] if self._next < len(self._words) else None
        if name in _OPTIONAL and (following is None or following.startswith("-")):
            return ""
        if following is None:
            raise InputError(f"option --{name} lacks its value")
        self._next += 1
        return following

    def _set_command(self, command: Command) -> None:
        if self.command is not None:
            raise InputError(
                f"--{self.command.value} and --{command.value} are two commands", hint="give one at a time"
            )
        self.command = command

    def _set(self, name: str, value: str) -> None:
        group = next((group for group in _EXCLUSIVE if name in group), (name,))
        for other in group:
            if other in self.options:
                said = f"--{name} is given twice" if other == name else f"--{other} and --{name} exclude each other"
                raise InputError(said)
        self.options[name] = value


# The views are no such group: of several, ipvsadm shows the first of its own order.
_EXCLUSIVE = (SERVICE_OPTIONS, FORWARDING_OPTIONS, CHECKSUM_OPTIONS)
