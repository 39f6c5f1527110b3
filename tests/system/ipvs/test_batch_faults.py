"""Batches of 20,000 rules that fail at any block: the table is the one before, as the real program saves it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.system.ipvs.conftest import PREVIOUS, rule_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.system.ipvs.conftest import Balancer

# Runs the program, but runs a command on this host before the batch's block of the given number, or behind the last;
# the command may kill this process, whose number it gets.
_FAULTY = """
import os, subprocess, sys

at, command = int(sys.argv.pop(1)), sys.argv.pop(1)

from kata_runtime.ipvs import batch

class Faulty:
    def __init__(self, channel):
        self.channel = channel

    def exchange(self, family, blocks):
        return self.channel.exchange(family, self.counted(blocks))

    def counted(self, blocks):
        number = 0
        for number, block in enumerate(blocks, 1):
            self.perhaps_fail(number)
            yield block
        self.perhaps_fail(number + 1)

    def perhaps_fail(self, number):
        if number == at:
            subprocess.run(["sh", "-c", command, "sh", str(os.getpid())], check=True)

original = batch.attempt_all

def attempt_all(channel, family, requests, **options):
    # What puts the previous table back passes no options.
    return original(Faulty(channel) if options else channel, family, requests, **options)

batch.attempt_all = attempt_all
from kata_runtime.cli.main import main
sys.exit(main())
"""
_KILL = "kill -9 $1"


class _Batch(NamedTuple):
    """Rules, and how many blocks of netlink messages they make."""

    lines: list[str]
    blocks: int


# As many rules as the previous table leaves of 20,000: 2.8 MB.
_MOST = _Batch([f"-A -u 10.3.0.{n}:53 -s rr" for n in range(1, 18)] + rule_lines(999, 19), 10)
# Three blocks that grow, and the last.
_FEW = _Batch(rule_lines(180, 19), 4)


@pytest.fixture
def before(balancer: Balancer) -> str:
    """A table with something in it, in a kernel that remembers no others."""
    balancer.renew()
    assert _outcome(balancer.restore(PREVIOUS)) == (0, "", "")
    return balancer.table()


def _restore(balancer: Balancer, path: Path, at: int, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """--restore with ``command`` run before block ``at``."""
    argv = balancer.sandbox.runtime.argv("kata-ipvs", "ipvsadm", "--restore", str(path), *options, balancer.sandbox.id)
    program = argv.index("--root") - 1
    argv[program : program + 1] = [sys.executable, "-c", _FAULTY, str(at), command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


def _in_guest(balancer: Balancer, script: str) -> str:
    """A command line for this host that runs ``script``, without quotes in it, in the guest."""
    argv = balancer.sandbox.runtime.argv("exec", balancer.sandbox.id, "sh", "-c")
    return f"{' '.join(argv)} '{script}'"


def _outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def _write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("options", [(), ("--replace",)])
def test_killed_at_every_block(balancer: Balancer, before: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Killed before any of its blocks, or behind the last, a batch is undone by the next command on the container."""
    for batch, points in ((_FEW, range(1, _FEW.blocks + 2)), (_MOST, (_MOST.blocks, _MOST.blocks + 1))):
        path = _write(tmp_path / "rules", batch.lines)
        for at in points:
            assert _outcome(_restore(balancer, path, at, _KILL, *options)) == (-9, "", "")
            # Deleted servers, which the kernel searches for two minutes, are not the subject here.
            assert _outcome(balancer.ours("-S")) == (0, before, "")
            assert balancer.table() == before
            balancer.renew()
            assert _outcome(balancer.restore(PREVIOUS)) == (0, "", "")
        assert _outcome(_restore(balancer, path, batch.blocks + 2, _KILL, *options)) == (0, "", "")
        assert len(balancer.table().splitlines()) == len(batch.lines) + (0 if options else 3)
        balancer.renew()
        assert _outcome(balancer.restore(PREVIOUS)) == (0, "", "")
    balancer.renew()


def test_ended_by_a_signal(balancer: Balancer, before: str, tmp_path: Path) -> None:
    """Asked to end half-way, a batch undoes itself, says so, and leaves nothing for the next command."""
    path = _write(tmp_path / "rules", _MOST.lines)
    done = _restore(balancer, path, _MOST.blocks // 2, "kill -TERM $1")
    told = "kata-runtime: ended by SIGTERM; its change is made whole or not at all\n"
    assert (done.returncode, done.stdout, done.stderr) == (143, "", told)
    assert balancer.table() == before
    assert not list(balancer.sandbox.directory.glob("ipvs-undo*"))


def test_agent_killed_at_every_block(balancer: Balancer, before: str, tmp_path: Path) -> None:
    """The agent dies before any block: the command says so, and the table is the previous one at once."""
    # The agent cannot say how a command ended that ended the agent.
    kill = _in_guest(balancer, "kill -9 $(pgrep -f [k]ata_runtime.guest)") + " >/dev/null 2>&1 || true"
    for batch, points in ((_FEW, range(1, _FEW.blocks + 1)), (_MOST, (_MOST.blocks,))):
        path = _write(tmp_path / "rules", batch.lines)
        for at in points:
            done = _restore(balancer, path, at, kill)
            assert (done.returncode, done.stdout) == (1, ""), done.stderr
            assert done.stderr.endswith("kata-runtime: the guest's agent ended and was restarted; try again\n")
            assert balancer.table() == before
            balancer.renew()
            assert _outcome(balancer.restore(PREVIOUS)) == (0, "", "")


def _with_line(number: int, line: str) -> list[str]:
    """20,000 lines of which one, which is unrelated to the others, is at the given position."""
    lines = ["# previous", "# table's", "# share", *_MOST.lines[1:]]
    return [*lines[: number - 1], line, *lines[number - 1 :]]


@pytest.mark.parametrize("number", [1, 9_999, 20_000])
def test_refused_by_the_kernel(balancer: Balancer, before: str, tmp_path: Path, number: int) -> None:
    """What only the kernel knows, that it lacks a scheduler, is reported with its line, and all is undone."""
    line = "-A -t 10.250.0.1:80 -s twos"
    path = _write(tmp_path / "rules", _with_line(number, line))
    done = balancer.sandbox.cli("kata-ipvs", "ipvsadm", "--restore", str(path), balancer.sandbox.id)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        (
            f"kata-runtime: {path}, line {number}: '{line}': the container's kernel has no scheduler twos\n"
            f"kata-runtime: 1 line of {path} cannot be applied; nothing was changed\n"
        ),
    )
    assert balancer.table() == before


@pytest.mark.parametrize("options", [(), ("--replace",)])
@pytest.mark.parametrize("number", [1, 9_999, 20_000])
def test_conflict_that_comes_up_meanwhile(
    balancer: Balancer, before: str, tmp_path: Path, number: int, options: tuple[str, ...]
) -> None:
    """A service that somebody in the container adds after the check is refused by its line, and stays theirs."""
    line = "-A -t 10.250.0.1:80 -s rr"
    theirs = "-A -t 10.250.0.1:80 -s wlc\n-a -t 10.250.0.1:80 -r 10.250.0.2:80 -g -w 5\n"
    add = "; ".join(f"ipvsadm {rule}" for rule in theirs.splitlines())
    path = _write(tmp_path / "rules", _with_line(number, line))
    done = _restore(balancer, path, 1, _in_guest(balancer, add), *options)
    reason = f"service TCP 10.250.0.1:80 exists already in container {balancer.sandbox.id[:12]}; edit it with -E"
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        (
            f"kata-runtime: {path}, line {number}: '{line}': {reason}\n"
            f"kata-runtime: 1 line of {path} cannot be applied; nothing was changed\n"
        ),
    )
    tcp, rest = before.split("-A -f ")
    assert balancer.table() == f"{tcp}{theirs}-A -f {rest}"
    balancer.do("-D -t 10.250.0.1:80")
    assert balancer.table() == before
