"""What can come next on a command line, in words and in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.typed_addresses import mac

from kata_runtime.cli.command_table import COMMANDS, GLOBAL_OPTIONS
from kata_runtime.cli.completion import DIRECTORIES, FILES, complete
from kata_runtime.cli.completion_scripts import SCRIPTS
from kata_runtime.sandbox.record import EndpointKind, NicRecord, Record, save_record

if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM = Path(sys.executable).with_name("kata-runtime")
_SECONDS = 60


def _nic(name: str, *, carried_from: str = "") -> NicRecord:
    return NicRecord(
        name=name, device=f"tap-{name}", mac=mac("02:00:00:00:00:01"), mtu=1500, addresses=(), slot=0, queues=0,
        vhost_user_socket="", kind=EndpointKind.TAP, namespace="", carried_from=carried_from,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the records of two sandboxes; one has NICs."""
    directory = tmp_path / "root"
    directory.mkdir(mode=0o700)
    for name in ("web", "webshop"):
        (directory / name).mkdir()
    nics = (_nic("eth-test"), _nic("eth1"), _nic("carried", carried_from="veth0"))
    save_record(str(directory / "web"), Record("web", nics=nics))
    save_record(str(directory / "webshop"), Record("webshop"))
    return directory


def _texts(words: list[str]) -> list[str]:
    return [line.partition("\t")[0] for line in complete(words)]


def test_every_command_and_option_is_a_candidate() -> None:
    """Each row of the table is reached word by word, with the meaning that it has there, and each option of it."""
    first = list(dict.fromkeys(command.words[0] for command in COMMANDS))
    assert _texts([""]) == _texts([]) == first
    assert _texts(["-"]) == [*(option.name for option in GLOBAL_OPTIONS), "--help"]
    for command in COMMANDS:
        *group, last = command.words
        assert last in _texts([*group, last[:-1]])
        if group:
            assert f"{last}\t{command.summary}" in complete([*group, ""])
        if not command.operands or not command.operands[-1].endswith("...]") or len(command.operands) > 2:
            assert _texts([*command.words, "-"]) == [*(option.name for option in command.options), "--help"]


def test_containers_and_nics(root: Path) -> None:
    """IDs come from the root directory that was given, NICs from the record, without those that kata-network lacks."""
    before = ["--root", str(root)]
    for words, expected in {
        ("kata-network", "list-ifaces", ""): ["web", "webshop"],
        ("kata-network", "list-ifaces", "webs"): ["webshop"],
        ("exec", ""): ["web", "webshop"],
        ("run", "--detach", ""): [],
        ("kata-network", "del-iface", "web", "--name", ""): ["eth-test", "eth1"],
        ("kata-network", "del-iface", "web", "--name=eth-"): ["--name=eth-test"],
        ("kata-network", "del-iface", "webshop", "--name", ""): [],
        ("kata-network", "del-port", "web", "eth1"): ["eth1"],
        ("kata-network", "add-port", "web", "--name", ""): [],
        ("kata-network", "add-port", "web", ""): [FILES],
        ("kata-network", "del-iface", "--name", ""): [],
    }.items():
        assert _texts([*before, *words]) == expected, words
    assert _texts([f"--root={root}", "state", "w"]) == ["web", "webshop"]


def test_values() -> None:
    """Choices are offered, files and directories left to the shell, what belongs to somebody else left alone."""
    for words, expected in {
        ("list", "--format", ""): ["table", "json"],
        ("list", "-f", "j"): ["json"],
        ("list", "--format=t"): ["--format=table"],
        ("list", "--quiet=t"): [],
        ("list", "--quiet", "-"): ["--format", "--help"],
        ("kata-network", "add-iface", "x", ""): [FILES],
        ("--log", ""): [FILES],
        ("image", "build", "--destination", ""): [DIRECTORIES],
        ("image", "build", "--include", "a", "--inc"): ["--include"],
        ("kill", "x", "T"): ["TERM"],
        ("kill", "x", "TERM", ""): [],
        ("exec", "x", ""): [],
        ("exec", "x", "sh", "-"): [],
        ("nosuch", ""): [],
        ("--nosuch", ""): [],
        ("kata-network", "--", ""): [],
        ("state", "--", "--"): [],
    }.items():
        assert _texts(list(words)) == expected, words


def test_many_containers_are_bounded(root: Path) -> None:
    """A thousand containers give no more than 500 lines."""
    for number in range(1000):
        (root / f"c{number}").mkdir()
    assert len(complete(["--root", str(root), "state", "c"])) == 500


@pytest.mark.parametrize("damage", ["record", "mode", "absent"])
def test_errors_are_silent(root: Path, damage: str) -> None:
    """A damaged record, a root that others may write to and one that is not there give nothing on either output."""
    if damage == "record":
        (root / "web/record.json").write_bytes(b"\xff{")
    elif damage == "mode":
        root.chmod(0o777)
    else:
        shutil.rmtree(root)
    argv = [
        str(_PROGRAM),
        "completion",
        "candidates",
        "--root",
        str(root),
        "kata-network",
        "del-iface",
        "web",
        "--name",
        "",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _bash(line: str, directory: Path, environment: dict[str, str]) -> list[str]:
    """What COMPREPLY is after ``line``; words are split as Readline does, at '=' too."""
    words = [part for word in line.split(" ") for part in _around_equals(word)]
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f"{SCRIPTS['bash']}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'\n"
        "COMP_POINT=${#COMP_LINE}; _kata_runtime; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    argv = ["bash", "--norc", "-c", script]
    return _run(argv, directory, environment).split()


def _around_equals(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    return [part for part in (name, equals, value) if part] or [""]


# What the completion adds is written to a file, since on the screen it stands between escape sequences.
_ZSH_SETTINGS = r"""
autoload -Uz compinit
compinit -u -d $COMPDUMP
source $SCRIPT
compadd() {
    local -a hits
    if [[ ${@[(I)-[OAD]]} == 0 ]]; then
        builtin compadd -O hits "$@"
        print -rl -- $hits >>$OFFERED
    fi
    builtin compadd "$@"
}
"""
# At the prompt zsh itself reads the keys; before, the terminal would do what C-u says.
_ZPTY = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source $SETTINGS; PS1="PROM""PT"'
zpty -r -m shell output '*PROMPT*'
zpty -w -n shell "$LINE"$'\t'
zpty -w shell $'\C-u''print DON""E'
zpty -r -m shell output '*DONE*'
"""


def _zsh(line: str, directory: Path, environment: dict[str, str]) -> list[str]:
    """What zsh's completion adds after a press of the key, on a terminal of its own."""
    settings = {
        "SCRIPT": directory.parent / "script",
        "SETTINGS": directory.parent / "settings",
        "COMPDUMP": directory.parent / "compdump",
        "OFFERED": directory.parent / "offered",
    }
    settings["SCRIPT"].write_text(SCRIPTS["zsh"])
    settings["SETTINGS"].write_text(_ZSH_SETTINGS)
    settings["OFFERED"].write_text("")
    paths = {name: str(path) for name, path in settings.items()}
    _run(["zsh", "-f", "-c", _ZPTY], directory, {**environment, **paths, "LINE": line, "TERM": "vt100"})
    return settings["OFFERED"].read_text().split()


def _fish(line: str, directory: Path, environment: dict[str, str]) -> list[str]:
    """What fish offers."""
    argv = ["fish", "--no-config", "-c", f"{SCRIPTS['fish']}\ncomplete -C '{line}'"]
    output = _run(argv, directory, {**environment, "HOME": str(directory)})
    return [row.partition("\t")[0] for row in output.splitlines()]


def _run(argv: list[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=_SECONDS, input="", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", [_bash, _zsh, _fish])
def test_shells_show_the_candidates(
    shell: Callable[[str, Path, dict[str, str]], list[str]], tmp_path: Path, root: Path
) -> None:
    """Each shell, with the script in it, offers commands, options, IDs, NICs, choices and files."""
    directory = tmp_path / "there"
    directory.mkdir()
    (directory / "nic.json").touch()
    environment = {**os.environ, "PATH": f"{_PROGRAM.parent}:{os.environ['PATH']}"}
    before = f"kata-runtime --root {root}"
    for line, expected in {
        "kata-runtime kata-network list-": {"list-ifaces", "list-routes"},
        f"{before} state web": {"web", "webshop"},
        f"{before} kata-network del-iface web --name ": {"eth-test", "eth1"},
        "kata-runtime list --format ": {"table", "json"},
        "kata-runtime list --f": {"--format"},
        "kata-runtime kata-network add-iface web ni": {"nic.json"},
        "kata-runtime nosuch ": set[str](),
    }.items():
        offered = {word for word in shell(line, directory, environment) if word in _KNOWN}
        assert offered == expected, line


_KNOWN = {
    "list-ifaces", "list-routes", "web", "webshop", "eth-test", "eth1", "table", "json", "--format", "nic.json",
    "carried", "add-iface", "--quiet", "run",
}  # fmt: skip
