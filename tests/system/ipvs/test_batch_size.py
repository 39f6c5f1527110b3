"""Ten times the usual limit: 200,000 rules, in bounded memory on both sides, with progress at a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.system.conftest import Runtime, Sandbox, booted, measured

from kata_runtime.ipvs.commands import open_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_RULES = 200_000
_HOST_KIB = 300_000
_AGENT_KIB = 64_000
_SECONDS = 240


class _Ended(NamedTuple):
    status: int
    stdout: bytes
    terminal: str
    peak_kib: int


@pytest.fixture
def roomy(runtime: Runtime, unique: Callable[[str], str]) -> Iterator[Sandbox]:
    """A sandbox with memory and limit for 200,000 rules."""
    config = runtime.root / ".roomy.toml"
    text = runtime.config.read_text().replace("default_memory = 384", "default_memory = 1024")
    # No other machine starts from a template of this one.
    config.write_text(f'{text}template = "off"\n[runtime]\nipvs_rule_limit = {_RULES}\n')
    try:
        with booted(Runtime(runtime.root, config), unique("roomy")) as made:
            yield made
    finally:
        config.unlink()


def _at_terminal(argv: list[str], report: Path) -> _Ended:
    """Run a command whose standard error is a terminal; the most memory that it had, in KiB."""
    argv = measured(argv, report)
    ours, theirs = os.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        try:
            while data := os.read(ours, 4096):
                shown.append(data)
        except OSError:
            return  # EIO: the other end is closed

    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        watcher = threading.Thread(target=watch)
        watcher.start()
        assert process.stdout is not None
        stdout = process.stdout.read()
        process.wait(_SECONDS)
        watcher.join(_SECONDS)
    os.close(ours)
    return _Ended(process.returncode, stdout, b"".join(shown).decode(), int(report.read_text()))


def _agent_peak_kib(sandbox: Sandbox) -> int:
    done = sandbox.guest("sh", "-c", "grep VmHWM /proc/$(pgrep -f '[k]ata_runtime.guest')/status")
    return int(done.stdout.split()[1])


def _lines() -> list[str]:
    lines = []
    for number in range(_RULES // 20):
        service = f"-t 10.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}:80"
        lines.append(f"-A {service} -s rr")
        lines += [f"-a {service} -r 10.200.{n}.{number % 250 + 1}:8080 -m -w {n + 1}" for n in range(19)]
    return lines


def test_two_hundred_thousand(roomy: Sandbox, tmp_path: Path) -> None:
    """200,000 rules load, save and load again as they are, in 300 MB of host memory and 64 MB of the agent's."""
    path, report = tmp_path / "rules", tmp_path / "memory"
    lines = _lines()
    path.write_text("\n".join(lines))
    words = ("kata-ipvs", "ipvsadm", "--restore", str(path))
    loaded = _at_terminal(roomy.runtime.argv(*words, roomy.id), report)
    assert (loaded.status, loaded.stdout) == (0, b"")
    shown = [part for part in loaded.terminal.split("\r") if part.strip()]
    assert len(shown) > 1
    for part in shown:
        assert re.fullmatch(r"\d+ of 200000 rules, \d+/s, \d+ s left *", part), part
    assert loaded.terminal.endswith(" \r")

    listed = roomy.guest("cat", "/proc/net/ip_vs").stdout
    assert len(listed.splitlines()) == _RULES + 3
    with roomy.session() as session:
        assert open_engine(session).count() == _RULES
    saved = _at_terminal(roomy.runtime.argv("kata-ipvs", "ipvsadm", "--parameters", "-S", roomy.id), report)
    assert sorted(saved.stdout.decode().splitlines()) == sorted(lines)
    again = _at_terminal(roomy.runtime.argv(*words, "--replace", roomy.id), report)
    assert (again.status, again.stdout, again.terminal) == (0, b"", "")
    for done in (loaded, saved, again):
        assert done.peak_kib < _HOST_KIB
    assert _agent_peak_kib(roomy) < _AGENT_KIB
