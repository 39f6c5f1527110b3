"""Whether one socket option lists all services, which the uses of the guest's kernel modules decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_runtime.ipvs.commands import open_engine
from kata_runtime.ipvs.sockopt_table import ServerDetails

if TYPE_CHECKING:
    from tests.system.ipvs.conftest import Balancer

_LISTINGS = (
    "-Ln", "-Sn", "-Ln --stats", "-Ln --rate --exact", "-Ln --thresholds", "-Ln --persistent-conn", "-Ln --nosort",
    "-Ln --tun-info",
)  # fmt: skip
# Of all kinds that IPv4 has, some with servers that only netlink reports completely.
_SERVICES = [
    *(f"-A -t 10.6.{n}.1:80 -s {('rr', 'wlc', 'sh -b sh-port')[n % 3]}" for n in range(100)),
    *(f"-A -u 10.7.{n}.1:53 -s wrr -p {n + 1} -M 255.255.255.0 -o" for n in range(100)),
    *(f"-A -f {n + 1} -s rr" for n in range(100)),
    *(f"-a -t 10.6.{n}.1:80 -r 10.8.{m}.192:8080 -m -w {m} -x 9 -y 3" for n in range(100) for m in range(n % 5)),
    *(f"-a -f {n + 1} -r 10.8.1.219:0 {'-i' if n % 3 else '-g'}" for n in range(100)),
    "-a -t 10.6.3.1:80 -r [fd00::7]:80 -i",
]


def _is_certain(balancer: Balancer) -> bool:
    with balancer.sandbox.session() as session:
        engine = open_engine(session)
        return engine.all_servers(ServerDetails(statistics=True, tunnels=True), repr) is not None


def _assert_as_real(balancer: Balancer) -> None:
    assert balancer.our_listings(_LISTINGS) == balancer.real_listings(_LISTINGS)
    with balancer.sandbox.session() as session:
        assert open_engine(session).count() == len(balancer.table().splitlines())


def test_services_of_ipv4(balancer: Balancer) -> None:
    """Of 300 services of IPv4 each listing equals that of ipvsadm 1.31, byte for byte, and the rules are counted."""
    done = balancer.restore("\n".join(_SERVICES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert _is_certain(balancer)
    _assert_as_real(balancer)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("ipvsadm -A -t [fd00::1]:80 -s rr", "ipvsadm -D -t [fd00::1]:80"),
        ("ipvsadm -A -t [fd00::1]:80 -s none", "ipvsadm -D -t [fd00::1]:80"),
        ("ipvsadm -A -f 7 -6 -s rr", "ipvsadm -D -f 7 -6"),
        ("ipvsadm -A -u 10.9.0.1:5060 --pe sip -s rr", "ipvsadm -D -u 10.9.0.1:5060"),
        ("ipvsadm --start-daemon master --mcast-interface lo", "ipvsadm --stop-daemon master"),
        ("modprobe ip_vs_ftp", "rmmod ip_vs_ftp"),
        (
            "touch /tmp/other && unshare --net=/tmp/other ipvsadm -A -t 10.9.0.1:80 -s rr",
            "nsenter --net=/tmp/other ipvsadm -C && umount /tmp/other && rm /tmp/other",
        ),
    ],
)
def test_anything_else(balancer: Balancer, begin: str, end: str) -> None:
    """While IPVS has anything that the option does not list, services are read by netlink, and nothing is missing."""
    assert balancer.restore("\n".join(_SERVICES[:300])).returncode == 0
    assert _is_certain(balancer)
    done = balancer.sandbox.guest("sh", "-c", begin)
    assert (done.returncode, done.stderr) == (0, "")
    assert not _is_certain(balancer)
    _assert_as_real(balancer)
    done = balancer.sandbox.guest("sh", "-c", end)
    assert (done.returncode, done.stderr) == (0, "")
    assert _is_certain(balancer)
