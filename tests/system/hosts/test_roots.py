"""The directory of all sandboxes on a file system that is full or read-only, as a mount namespace shows it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.conftest import Runtime, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Completed, Namespace, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
_RULES = "-A -t 10.9.9.9:80 -s rr\n" + "".join(f"-a -t 10.9.9.9:80 -r 10.9.8.{n}:80 -m\n" for n in range(1, 60))
_NO_SPACE = "No space left on device\n"
_SECONDS = 60


@contextmanager
def _mounted(script: str, root: Path) -> Iterator[list[str]]:
    """The start of command lines that run in a mount namespace of their own, where ``script`` has mounted something."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{script}; echo; exec cat", "sh", str(root)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == b"\n"
            yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
        finally:
            # The namespace goes with its last process.
            holder.stdin.close()


class _Inside(Runtime):
    """The program with a root that only a mount namespace has."""

    def __init__(self, outer: Runtime, root: Path, prefix: list[str]) -> None:
        super().__init__(root, outer.config)
        self.namespace = outer.namespace
        self._prefix = prefix

    def argv(self, *words: str) -> list[str]:
        return [*self._prefix, *super().argv(*words)]

    def shell(self, script: str) -> str:
        argv = [*self._prefix, "sh", "-c", script, "sh", str(self.root)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
        return done.stdout


def test_full_disk(runtime: Runtime, namespace: Namespace, unique: Callable[[str], str]) -> None:
    """Without room a start, a NIC and rules are refused in a line and nothing is changed; with room all work."""
    namespace.tap("tap0", "10.0.0.1/24")
    name, other = unique("full"), unique("none")
    with (
        tempfile.TemporaryDirectory(prefix="kata-full-") as root,
        _mounted('mount -t tmpfs -o size=1m,mode=700 tmpfs "$1"', Path(root)) as prefix,
    ):
        inside = _Inside(runtime, Path(root), prefix)
        assert _outcome(inside.cli("run", "--detach", name)) == (0, f"{name}\n", "")
        try:
            changes = (
                (("kata-network", "add-iface", name, "-"), json.dumps(_NIC), "null\n"),
                (("kata-ipvs", "ipvsadm", "--restore", "-", name), _RULES, ""),
            )
            inside.shell('cat /dev/zero >"$1/filler"')
            record = inside.shell(f'cat "$1/{name}/record.json"')
            for words, given, answer in changes:
                _check_refused(inside.cli(*words, stdin=given), answer)
            _check_refused(inside.cli("run", "--detach", other), "")
            assert inside.shell(f'cat "$1/{name}/record.json"') == record
            assert inside.shell('ls "$1"').split() == sorted(["filler", name])
            assert _outcome(inside.cli("kata-network", "list-ifaces", name)) == (0, "null\n", "")
            assert inside.cli("kata-ipvs", "ipvsadm", "--parameters", "-S", name).stdout == ""
            inside.shell('rm "$1/filler"')
            for words, given, _ in changes:
                done = inside.cli(*words, stdin=given)
                assert (done.returncode, done.stderr) == (0, ""), done
        finally:
            inside.shell('rm -f "$1/filler"')
            deleted = inside.cli("delete", "--force", name)
        assert _outcome(deleted) == (0, "", "")
        assert inside.shell('ls "$1"') == ""


def test_read_only(sandbox: Sandbox, namespace: Namespace) -> None:
    """Where the root is read-only every command that changes something is refused in a line; nothing is changed."""
    namespace.tap("tap0", "10.0.0.1/24")
    before = sandbox.snapshot()
    with _mounted('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', sandbox.root) as prefix:
        inside = _Inside(sandbox.runtime, sandbox.root, prefix)
        assert json.loads(inside.cli("state", sandbox.id).stdout)["status"] == "running"
        for words, given in (
            (("kata-network", "add-iface", sandbox.id, "-"), json.dumps(_NIC)),
            (("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id), _RULES),
            (("run", "--detach", "other"), ""),
        ):
            done = inside.cli(*words, stdin=given)
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
            assert done.stderr.startswith("kata-runtime: cannot "), done
            assert done.stderr.endswith("Read-only file system\n"), done
    assert sandbox.snapshot() == before


def _check_refused(done: Completed, answer: str) -> None:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, answer, 1), done
    assert done.stderr.startswith("kata-runtime: cannot "), done
    assert done.stderr.endswith(_NO_SPACE), done


def _outcome(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr
