"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
from tests.quality.trees import ROOT, module_of, python_files, tracked_files, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MODULE_LINES = 400
_FUNCTION_LINES = 50
# Assembled, so that whoever searches the tree for comments that silence a tool does not find this pattern.
_NOT_CHECKED = "{}qa".format("no")
_TYPES, _UNCHECKED_TYPES = "type", "ignore"
_SUPPRESSIONS = re.compile(
    rf"#\s*({_TYPES}:\s*{_UNCHECKED_TYPES}|(ruff:\s*)?{_NOT_CHECKED}|(mypy|pragma):)", re.IGNORECASE
)
_OUTSIDE_ADDRESS = re.compile(r"\b[a-z][a-z+]*://[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
# The name of a format, which nobody connects to.
_SVG_NAMESPACE = "http" + "://www.w3.org/2000/svg"
_FORKED = {("os._exit", "kata_runtime.sandbox.process"), ("os._exit", "kata_runtime.oci.shim")}
_ALL = ("src", "tests", "scripts", "demo", "bench", "lab", "conformance")


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_modules_are_short() -> None:
    """No module has more than 400 lines."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files(*_ALL)}
    assert {path: size for path, size in sizes.items() if size > _MODULE_LINES} == {}


def test_functions_are_short() -> None:
    """No function has more than 50 lines."""
    long = [
        f"{_place(path, node.lineno)} {node.name}"
        for path in python_files(*_ALL)
        for node in _functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > _FUNCTION_LINES
    ]
    assert long == []


def test_only_the_command_line_speaks_and_exits() -> None:
    """Below cli nothing prints to stdout, reads argv or exits; the agent's console is its stderr."""
    banned = {"sys.exit", "exit", "quit", "os._exit", "input", "print"}
    below = [
        path
        for path in python_files("src")
        if not module_of(path).startswith(("kata_runtime.cli", "kata_runtime.__main__"))
    ]
    wrong = []
    for path in below:
        on_host = not module_of(path).startswith("kata_runtime.guest.agent")
        wrong += [
            f"{_place(path, line)} {name}"
            for line, name in _calls(path)
            if on_host
            and name in banned
            # Between fork and exec there is nothing to return to.
            and (name, module_of(path)) not in _FORKED
        ]
    assert wrong == []


# Who may wait for the clock, and what has no event to wait for instead.
_CLOCK = {
    "src/kata_runtime/cli/show_command.py": "the interval between two readings of counters is what is asked for",
    "src/kata_runtime/network/clients/neutron.py": "a server of Neutron tells nobody that a port changed",
    "src/kata_runtime/sandbox/cgroup.py": "a control group is busy for a moment after its last process",
    "src/kata_runtime/vmm/hotplug.py": "QEMU has no event for a character device that connected",
    "tests/system/engines/conftest.py": "an engine cleans up some time after its command ended",
    "tests/system/hosts/rounds.py": "QEMU closes a connection some time after its client did",
    "tests/system/killing/life.py": "an ended process takes a moment to go",
    "tests/system/killing/world.py": "QEMU closes a connection some time after its client did",
    "tests/system/vmm/conftest.py": "QEMU closes a connection some time after its client did",
}


def _waits_for_the_clock(node: ast.Call) -> bool:
    """A sleep, also in disguise: select(2) and poll(2) with a time-out and nothing to wait for."""
    name = ast.unparse(node.func)
    if name.rpartition(".")[2] == "select":
        return len(node.args) == 4 and all(ast.unparse(argument) in ("[]", "()") for argument in node.args[:3])
    return name in {"time.sleep", "sleep", "select.poll().poll", "Event().wait", "threading.Event().wait"}


def test_nothing_sleeps() -> None:
    """Waiting is for descriptors and events, and for the clock only where there is neither."""
    wrong = [
        _place(path, node.lineno)
        for path in python_files(*_ALL)
        if str(path.relative_to(ROOT)) not in _CLOCK
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and _waits_for_the_clock(node)
    ]
    assert wrong == []


# Apart from its brackets, so that whoever searches the tree for sleeps does not find this text, which nothing runs.
_SLEEP = "sleep"


@pytest.mark.parametrize(
    ("call", "sleeps"),
    [
        (f"time.{_SLEEP}(1)", True),
        ("select.select([], [], [], 0.1)", True),
        ("select([], [], [], PAUSE)", True),
        ("select.poll().poll(10)", True),
        ("select.select([fd], [], [], 0.1)", False),
        ("poller.poll(10)", False),
    ],
)
def test_sleeps_are_recognised(call: str, sleeps: bool) -> None:
    """A sleep by select or poll is found, a wait for a descriptor is none."""
    statement = ast.parse(call).body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert _waits_for_the_clock(statement.value) == sleeps


def test_nothing_is_skipped() -> None:
    """No test is skipped or expected to fail."""
    words = {"skip", "skipif", "xfail", "importorskip", "skipTest"}
    wrong = [
        _place(path, node.lineno)
        for path in python_files("tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in words
    ]
    assert wrong == []


def test_no_tool_is_silenced() -> None:
    """No comment switches a checker off."""
    wrong = [
        _place(path, number)
        for path in python_files(*_ALL)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if _SUPPRESSIONS.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "tool",
    [_NOT_CHECKED, f"ruff: {_NOT_CHECKED}", f"{_TYPES}: {_UNCHECKED_TYPES}[misc]", "mypy: strict", "pragma: no cover"],
)
def test_suppressions_are_recognised(tool: str) -> None:
    """A comment that silences a tool is found, whatever its letters' case; one that only names the tool is none."""
    assert _SUPPRESSIONS.search(f"value = 1  # {tool.upper()}")
    assert not _SUPPRESSIONS.search(f"value = 1  # what {tool} says")


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring."""
    wrong = [
        f"{_place(path, node.lineno)} {node.name}"
        for path in python_files("tests")
        for node in _functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert wrong == []


def test_no_outside_addresses() -> None:
    """Packages come from wherever the host is set up to get them: no tracked file names a server."""
    wrong = [
        _place(path, number)
        for path in tracked_files()
        if path.name != "LICENSE" and path.suffix != ".bin" and path.suffix != ".md"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if _OUTSIDE_ADDRESS.search(line.replace(_SVG_NAMESPACE, ""))
    ]
    assert wrong == []
