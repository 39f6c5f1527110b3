"""What kata-ipvs does to the guest besides virtual servers: nothing for a listing or a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.ipvs.conftest import Balancer

_SYSCTLS = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv4/vs/conntrack"
_LISTINGS = ("-L", "-S", "-L --stats", "-L -c", "-L --timeout", "-L --daemon", "-C", "-Z", "--set 900 120 300")
_FAILURES = ("-A -t 10.0.0.1:80 -s twos", "-a -t 10.0.0.1:80 -r 10.0.0.2:80", "-E -t 10.0.0.1:80", "-D -f 1")


def _sysctls(balancer: Balancer) -> str:
    return balancer.sandbox.guest("sh", "-c", f"cat {_SYSCTLS}").stdout


@pytest.fixture
def untouched(balancer: Balancer) -> Balancer:
    """A guest as it boots: no IPVS, no forwarding."""
    balancer.renew()
    script = f"modprobe ip_vs; for name in {_SYSCTLS}; do echo 0 > $name; done"
    assert balancer.sandbox.guest("sh", "-c", script).returncode == 0
    return balancer


def test_only_rules_need_forwarding(untouched: Balancer) -> None:
    """Listings, failed commands and changes without a rule leave forwarding alone; the first rule sets it."""
    for words in _LISTINGS:
        assert untouched.ours(words).returncode == 0, words
        assert _sysctls(untouched) == "0\n0\n0\n", words
    for words in _FAILURES:
        assert untouched.ours(words).returncode == 1, words
        assert _sysctls(untouched) == "0\n0\n0\n", words
    assert untouched.restore("-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.2:80 -s twos\n").returncode == 1
    assert _sysctls(untouched) == "0\n0\n0\n"
    untouched.do("-A -t 10.0.0.1:80")
    assert _sysctls(untouched) == "1\n1\n1\n"


def test_batch_needs_forwarding(untouched: Balancer) -> None:
    """A batch sets it, too."""
    assert untouched.restore("-A -t 10.0.0.1:80 -s rr\n").returncode == 0
    assert _sysctls(untouched) == "1\n1\n1\n"


def test_first_listing(balancer: Balancer) -> None:
    """Without the module the table is shown as empty, as the real program shows it."""
    balancer.renew()
    listed = balancer.ours("-L")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, balancer.real("-Ln").stdout, "")


@pytest.fixture
def narrow(balancer: Balancer) -> Iterator[Balancer]:
    """A container that may have five rules."""
    with balancer.sandbox.session() as session:
        before = session.record.ipvs_rule_limit
        session.save(session.record._replace(ipvs_rule_limit=5))
    try:
        yield balancer
    finally:
        with balancer.sandbox.session() as session:
            session.save(session.record._replace(ipvs_rule_limit=before))


def test_rules_of_the_containers_own_count(narrow: Balancer) -> None:
    """What ipvsadm in the container adds and deletes counts at once, for single rules and for batches."""

    def refusal(present: int, wanted: int) -> str:
        return (
            f"kata-runtime: the container has {present} of 5 possible rules, and would have {wanted}; services and "
            "servers both count; ipvs_rule_limit in the configuration raises the limit\n"
        )

    narrow.do("-A -t 10.0.0.1:80", "-a -t 10.0.0.1:80 -r 10.1.0.1:80")
    assert narrow.real("-R", stdin="-A -f 1\n-A -f 2\n-A -f 3\n").returncode == 0
    refused = narrow.ours("-A -f 4")
    assert (refused.returncode, refused.stderr) == (1, refusal(5, 6))
    assert narrow.real("-D", "-f", "1").returncode == 0
    narrow.do("-A -f 4")
    assert narrow.real("-D", "-f", "2").returncode == 0
    refused = narrow.restore("-A -f 5\n-A -f 6\n")
    assert (refused.returncode, refused.stderr) == (1, refusal(4, 6))
    assert narrow.restore("-A -f 5\n").returncode == 0
    assert len(narrow.table().splitlines()) == 5


@pytest.mark.parametrize("command", ["-A", "-E"])
def test_netmask_of_nothing(balancer: Balancer, command: str) -> None:
    """The netmask 0.0.0.0, all clients being one, is taken, listed and saved as by the real program."""
    rule = "-t 10.0.0.1:80 -s rr -p 60 -M 0.0.0.0"
    if command == "-E":
        balancer.do("-A -t 10.0.0.1:80 -s rr")
    balancer.do(f"{command} {rule}")
    ours = balancer.table(), balancer.real("-Ln").stdout
    assert (balancer.ours("-S").stdout, balancer.ours("-L").stdout) == ours
    balancer.do("-C")
    assert balancer.real("-A", *rule.split()).returncode == 0
    assert (balancer.table(), balancer.real("-Ln").stdout) == ours
