"""kata-ipvs on a sandbox, next to the guest's own ipvsadm as oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Completed, Sandbox


class Balancer:
    """A sandbox whose virtual servers are under test."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def ours(self, parameters: str) -> Completed:
        """kata-ipvs ipvsadm --parameters"""
        return self.sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", parameters, self.sandbox.id)

    def do(self, *lines: str) -> None:
        """Commands of ours that must succeed without a word."""
        for line in lines:
            done = self.ours(line)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), line

    def restore(self, rules: str | bytes, *more: str) -> Completed:
        """kata-ipvs ipvsadm --restore -"""
        return self.sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", *more, self.sandbox.id, stdin=rules)

    def real(self, *words: str, stdin: str | None = None) -> Completed:
        """ipvsadm in the guest."""
        return self.sandbox.guest("ipvsadm", *words, stdin=stdin)

    def table(self) -> str:
        """The table as the real program saves it."""
        done = self.real("-Sn")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture
def balancer(sandbox: Sandbox) -> Iterator[Balancer]:
    """An empty table; emptied again at the end."""
    made = Balancer(sandbox)
    made.do("-C")
    yield made
    made.do("-C", "--set 900 120 300")
