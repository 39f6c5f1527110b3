"""argv as users type it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.cli.argument_parser import Call, Help, Version, parse
from kata_runtime.cli.command_table import COMMANDS
from kata_runtime.cli.help import GROUPS, help_text
from kata_runtime.errors import UsageError


def read(*argv: str) -> Call:
    call = parse(argv)
    assert isinstance(call, Call)
    return call


def test_options_around_operands() -> None:
    """Options can be before or after the operands, with a space or an equals sign, and any value."""
    for argv in (
        ("kata-ipvs", "ipvsadm", "--parameters", "-L -n", "6ec7a98"),
        ("kata-ipvs", "ipvsadm", "6ec7a98", "--parameters=-L -n"),
    ):
        call = read(*argv)
        assert call.command.name == "kata-ipvs ipvsadm"
        assert (call.value("--parameters"), call.value("--restore"), call.operands) == (
            "-L -n",
            None,
            ["6ec7a98"],
        )


def test_settings_before_the_command() -> None:
    """Global options are before the command."""
    call = read("--root", "/tmp/r", "--debug", "--log-format=json", "kata-network", "add-iface", "x", "-")
    assert call.settings == {"--root": "/tmp/r", "--debug": "", "--log-format": "json"}
    assert call.operands == ["x", "-"]


@pytest.mark.parametrize("seconds", ["0", "1.5", "86400", "007"])
def test_seconds(seconds: str) -> None:
    """Seconds are a number, whole or decimal."""
    assert read("--lock-timeout", seconds, "list").settings == {"--lock-timeout": seconds}


def test_exec_keeps_its_words() -> None:
    """Everything after the ID belongs to the command, dashes included."""
    assert read("exec", "x", "sh", "-c", "--help", "--").operands == ["x", "sh", "-c", "--help", "--"]
    assert read("exec", "x", "--", "ls", "--").operands == ["x", "--", "ls", "--"]


def test_short_and_repeated_options() -> None:
    """Short names mean the long ones, and --include collects."""
    assert read("delete", "-f", "x").value("--force") == ""
    assert read("list", "-q").value("--quiet") == ""
    assert read("image", "build", "--include", "a", "--include=b").options == {"--include": ["a", "b"]}


def test_end_of_options() -> None:
    """After -- a word with a dash is an operand."""
    assert read("state", "--", "-x").operands == ["-x"]


def test_help_and_version() -> None:
    """Help is asked of all, of a group and of one command."""
    assert parse(["--help"]) == Help(())
    assert parse(["kata-network", "-h"]) == Help(("kata-network",))
    assert parse(["kata-network", "add-iface", "x", "--help"]) == Help(("kata-network", "add-iface"))
    assert parse(["exec", "-h"]) == Help(("exec",))
    assert parse(["--version"]) == Version()


def test_every_command_has_help() -> None:
    """The help of each command shows its usage line, and the program's help names every command."""
    for command in COMMANDS:
        assert help_text(command.words).startswith(f"usage: kata-runtime {command.name}")
        assert f"  {command.name} " in help_text(())


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("200", 100)])
def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, widest: int) -> None:
    """Every help text is wrapped to the terminal's width, 100 columns at most; options stay beside their values."""
    monkeypatch.setenv("COLUMNS", columns)
    every = [(), *((group,) for group in GROUPS), *(command.words for command in COMMANDS)]
    lines = [line for words in every for line in help_text(words).splitlines()]
    assert [line for line in lines if len(line) > widest] == []
    assert max(map(len, lines)) > widest - 5
    usage = "usage: kata-runtime kata-ipvs top [--once] [--interval SECONDS] [--sort ORDER]"
    assert [line.startswith(usage) for line in lines].count(True) == 1


USAGE: list[tuple[str, str]] = [
    ("", "no command is given; kata-runtime --help lists the commands"),
    ("lst", "there is no command 'lst'; did you mean list?"),
    ("frobnicate", "there is no command 'frobnicate'; kata-runtime --help lists the commands"),
    ("kata-ipvs", "kata-ipvs needs a command; it has ipvsadm, top, cleanup"),
    ("kata-network add-ifac", "kata-network has no command 'add-ifac'; did you mean add-iface?"),
    ("state", "state lacks ID; usage: kata-runtime state ID"),
    ("state a b", "state does not take 'b'; usage: kata-runtime state ID"),
    (
        "kata-network list-ifaces x --root y",
        "kata-network list-ifaces has no option --root; it goes before the command: kata-runtime --root ...",
    ),
    ("delete --forced x", "delete has no option '--forced'; did you mean --force?"),
    ("delete --force=1 x", "delete: --force takes no value, not '1'"),
    ("list --format xml", "list: --format is 'xml'; it must be table or json"),
    ("list -q -q", "list: --quiet is given twice; give it once"),
    ("--root", "--root needs a value; where sandboxes keep their state (default: /run/kata-runtime)"),
    ("--lock-timeout x list", "--lock-timeout is 'x'; it must be a number of seconds, 0-86400"),
    ("--lock-timeout=-1 list", "--lock-timeout is '-1'; it must be a number of seconds, 0-86400"),
    ("--lock-timeout 86400.1 list", "--lock-timeout is '86400.1'; it must be a number of seconds, 0-86400"),
    ("--log-format xml list", "--log-format is 'xml'; it must be text or json"),
]


@pytest.mark.parametrize(("line", "message"), USAGE)
def test_usage_error(line: str, message: str) -> None:
    """A wrong command line is refused in one line that says what would be right."""
    with pytest.raises(UsageError) as raised:
        parse(line.split())
    assert str(raised.value) == message


words = st.sampled_from([word for command in COMMANDS for word in command.words] + ["-f", "--", "-", "--format", "x"])


@given(st.lists(words | st.text(), max_size=6))
def test_any_words(argv: list[str]) -> None:
    """Any words are a call, a question for help, or a UsageError."""
    with suppress(UsageError):
        parse(argv)
