"""kata-ipvs on a sandbox, next to the guest's own ipvsadm as oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.system.conftest import Completed, Sandbox


PREVIOUS = "-A -t 10.9.9.9:80 -s wlc -p 60\n-a -t 10.9.9.9:80 -r 10.9.9.1:80 -m -w 7\n-A -f 3 -s rr\n"

_RENEW = """
ipvsadm -C
for module in $(sed -n 's/^\\(ip_vs_[a-z0-9_]*\\) .*/\\1/p' /proc/modules) ip_vs; do rmmod $module; done
"""


def rule_lines(services: int, servers: int) -> list[str]:
    """Services with as many servers each, a rule a line."""
    lines = []
    for number in range(services):
        service = f"-t 10.1.{number // 250}.{number % 250 + 1}:80"
        lines.append(f"-A {service} -s rr")
        lines += [f"-a {service} -r 10.2.{n // 250}.{n % 250 + 1}:8080 -m -w {n % 100}" for n in range(servers)]
    return lines


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

    def real_listings(self, all_words: Sequence[str]) -> dict[str, str]:
        """What ipvsadm in the guest prints for each of these words, from one start of a shell."""
        script = "".join(f"ipvsadm {words} || echo failed\necho end\n" for words in all_words)
        done = self.sandbox.guest("sh", "-s", stdin=script)
        assert (done.returncode, done.stderr) == (0, "")
        *printed, rest = done.stdout.split("end\n")
        assert rest == ""
        return dict(zip(all_words, printed, strict=True))

    def our_listings(self, all_words: Sequence[str]) -> dict[str, str]:
        """What ours prints for each of these words."""
        listings = {}
        for words in all_words:
            done = self.ours(words)
            assert (done.returncode, done.stderr) == (0, ""), words
            listings[words] = done.stdout
        return listings

    def renew(self) -> None:
        """A table as in a new container.

        The kernel keeps deleted servers for two minutes, and each addition looks through them (ip_vs_trash_get_dest):
        what tests delete by the ten thousand would slow others down.
        """
        done = self.sandbox.guest("sh", "-s", stdin=_RENEW)
        assert (done.returncode, done.stderr) == (0, "")

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
    done = sandbox.guest("sh", "-c", "ipvsadm -C && ipvsadm --set 900 120 300")
    assert (done.returncode, done.stderr) == (0, "")
