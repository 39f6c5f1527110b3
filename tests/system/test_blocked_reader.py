"""Whoever reads a command's output may stop: the container is free for other commands all the same."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.ipvs.conftest import rule_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Sandbox

_SECONDS = 60
_ROUTES = 2000
# More than a pipe holds (64 KiB).
_RULES = rule_lines(100, 20)


@contextmanager
def _stopped_reader(argv: list[str], stdin: bytes) -> Iterator[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """The command, and a reader of its output that was stopped before it read anything."""
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    os.kill(reader.pid, signal.SIGSTOP)
    command = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=reader.stdin, stderr=subprocess.PIPE)
    reader.stdin.close()
    reader.stdin = None
    try:
        assert command.stdin is not None
        command.stdin.write(stdin)
        command.stdin.close()
        command.stdin = None
        yield command, reader
    finally:
        for process in (command, reader):
            process.kill()
            process.communicate()


def _outcome(sandbox: Sandbox, words: list[str], stdin: bytes, beside: list[str]) -> tuple[int, bytes, bytes]:
    """Status, output and errors of a command whose reader does not read while ``beside`` is done."""
    with _stopped_reader(sandbox.runtime.argv(*words), stdin) as (command, reader):
        for _ in range(2):
            other = sandbox.cli("--lock-timeout", str(_SECONDS), *beside)
            assert other.returncode == 0, other.stderr
        # What the reader has not taken is more than the pipe holds: the command is not at its end.
        assert command.poll() is None
        os.kill(reader.pid, signal.SIGCONT)
        output, _ = reader.communicate(timeout=_SECONDS)
        _, errors = command.communicate(timeout=_SECONDS)
    return command.returncode, output, errors


@pytest.mark.parametrize("parameters", ["-L", "-S", "-L --stats"])
def test_virtual_servers(sandbox: Sandbox, parameters: str) -> None:
    """A listing whose reader does not read keeps no command waiting, and is whole in the end."""
    ipvsadm = ["kata-ipvs", "ipvsadm", "--parameters"]
    rules = "\n".join(_RULES).encode()
    assert sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id, stdin=rules).returncode == 0
    try:
        expected = sandbox.cli(*ipvsadm, parameters, sandbox.id).stdout.encode()
        assert len(expected) > 1 << 16
        beside = [*ipvsadm, "--set 900 120 300", sandbox.id]
        assert _outcome(sandbox, [*ipvsadm, parameters, sandbox.id], b"", beside) == (0, expected, b"")
    finally:
        sandbox.cli(*ipvsadm, "-C", sandbox.id)


def test_routes(sandbox: Sandbox, namespace: Namespace) -> None:
    """Neither do the routes that were added, are listed or are deleted."""
    namespace.tap("tap0", "10.0.0.1/16")
    assert sandbox.network("add-iface", nic("tap0", "eth0", "10.0.0.3/16")).returncode == 0
    try:
        routes = [
            f'{{"dest":"10.{100 + n // 250}.{n % 250}.0/24","gateway":"10.0.0.1","device":"eth0"}}'
            for n in range(_ROUTES)
        ]
        document = f"[{','.join(routes)}]"
        beside = ["kata-network", "list-ifaces", sandbox.id]
        for verb in ("add-route", "update-routes", "list-routes", "del-route"):
            is_list = verb == "list-routes"
            words = ["kata-network", verb, sandbox.id, *([] if is_list else ["-"])]
            status, output, errors = _outcome(sandbox, words, b"" if is_list else document.encode(), beside)
            shown = output.decode().removesuffix("\n")
            if is_list:
                shown = shown.replace(',{"dest":"10.0.0.0/16","gateway":"","device":"eth0"}', "")
                shown = shown.replace('{"dest":"10.0.0.0/16","gateway":"","device":"eth0"},', "")
            assert (status, shown, errors) == (0, document, b""), verb
    finally:
        assert sandbox.network("del-iface", {"name": "eth0"}).returncode == 0


def test_lock_timeout(sandbox: Sandbox) -> None:
    """A command prints what it waits for, gives up at its deadline, and changes nothing."""
    words = ("kata-network", "list-ifaces", sandbox.id)
    with sandbox.session():
        given_up = sandbox.cli("--lock-timeout", "1.2", *words)
        at_once = sandbox.cli("--lock-timeout", "0", *words)
    who = f"process {os.getpid()}"
    failure = (
        f"kata-runtime: the end of the work of {who} on container {sandbox.id} did not happen within %s s; "
        "try again later, or wait longer with --lock-timeout\n"
    )
    waiting = f"kata-runtime: waiting for container {sandbox.id}, which {who} uses\n"
    assert (given_up.returncode, given_up.stdout, given_up.stderr) == (1, "null\n", waiting + failure % "1.2")
    assert (at_once.returncode, at_once.stdout, at_once.stderr) == (1, "null\n", failure % "0")
