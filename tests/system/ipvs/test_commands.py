"""Single commands: the guide's own lines, every listing byte for byte, every refusal by its line."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

from kata_runtime.errors import KernelError
from kata_runtime.ipvs import sockopt_table
from kata_runtime.ipvs.commands import open_engine
from kata_runtime.ipvs.engine import Engine
from kata_runtime.ipvs.guest_setup import ask_number
from kata_runtime.ipvs.socket_options import covers, identity_of
from kata_runtime.ipvs.sockopt_table import ServerDetails

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.system.ipvs.conftest import Balancer

    from kata_runtime.guest.channel import AgentChannel

_TABLE = (
    "-A -t 10.0.0.1:80 -s rr",
    "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3",
    "-a -t 10.0.0.1:80 -r 10.0.0.3:80 -g -x 100 -y 50",
    "-a -t 10.0.0.1:80 -r 10.0.0.4:80 -i",
    "-a -t 10.0.0.1:80 -r 10.0.0.5:80 -i --tun-type gue --tun-port 6080 --tun-csum",
    "-a -t 10.0.0.1:80 -r 10.0.0.6:80 -i --tun-type gre --tun-nocsum",
    "-a -t 10.0.0.1:80 -r 10.0.0.7:80 -i --tun-type gue --tun-port 6080 --tun-remcsum",
    "-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g",
    "-a -t 10.0.0.1:80 -r [fd00::1]:80 -i",
    "-a -t 10.0.0.1:80 -r 200.1.1.1:80 -m",
    "-a -t 10.0.0.1:80 -r 128.0.0.1:80 -m",
    "-A -u 10.0.0.1:53 -s wlc -p 600 -M 255.255.255.0 -o",
    "-A -t [fd00::1]:443 -s sh -b sh-fallback,sh-port -p",
    "-a -t [fd00::1]:443 -r [fd00:1111:2222:3333:4444:5555:6666:7777]:65535 -m",
    "-A --sctp-service 10.0.0.9:5060 -s mh -b mh-port",
    "-A -f 17 -s sed",
    "-a -f 17 -r 10.1.1.1 -g",
    "-a -f 17 -r 10.1.1.2:80 -m",
    "-A -f 18 -6 -s nq",
    "-a -f 18 -6 -r [fd00::9]:80 -g",
    "-A -u 10.0.0.1:5060 --pe sip -p 100 -s lblc",
    "-A -t [fd00::2]:0 -p 20 -M 64 -s fo",
    "-A -t 10.0.0.77:80 -b flag-1,flag-3 -s ovf",
    "-A -t 200.0.0.1:80 -s dh",
    "-A -t 128.0.0.1:80 -s lblcr",
    "-A -u 192.168.0.1:80 -s wrr -p 300 -M 255.255.0.0 -o -b flag-2",
    "-A -t 192.168.0.2:80 -s lc",
)
_LISTINGS = (
    "-Ln", "-Sn", "-Ln --stats", "-Ln --rate", "-Ln --thresholds", "-Ln --persistent-conn", "-Ln --timeout",
    "-Ln --daemon", "-Lnc", "-Ln --stats --exact", "-Ln -t 10.0.0.1:80", "-Ln -f 17", "-Ln -f 18 -6", "-Ln --nosort",
    "-Ln --tun-info", "-Ln --stats --rate", "-Lnc --persistent-conn", "-Ln -t 10.0.0.1:80 --stats", "-l -n --sort",
)  # fmt: skip


def test_every_listing_is_the_real_ones(balancer: Balancer) -> None:
    """Of a table with everything in it, each listing equals that of ipvsadm 1.31, byte for byte."""
    balancer.do(*_TABLE)
    assert balancer.our_listings(_LISTINGS) == balancer.real_listings(_LISTINGS)


class _WithoutOptions:
    """A guest that refuses to read socket options."""

    def __init__(self, guest: AgentChannel) -> None:
        self.exchange, self.read_file = guest.exchange, guest.read_file

    def socket_options(self, number: int, _asked: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[bytes]:
        """None of them."""
        raise KernelError(f"reading socket option {number}", errno.EOPNOTSUPP)


def _many_services() -> list[str]:
    """Services of all kinds, many of which only netlink reports completely."""
    lines = []
    for number in range(30):
        lines += [f"-A -u 10.6.{number}.{n + 1}:53 -s rr" for n in range(7)]
        lines.append(f"-A -t 10.3.0.{number + 1}:80 -s wlc -p {number + 1}")
        lines += [f"-a -t 10.3.0.{number + 1}:80 -r 10.4.{n}.192:8080 -m -w {n} -x {n + 9} -y 3" for n in range(number)]
        lines.append(f"-A -f {number + 101} -s rr")
        lines.append(f"-a -f {number + 101} -r 10.4.{number}.219:0 {'-i' if number % 3 else '-g'}")
    lines += ["-a -t 10.3.0.9:80 -r [fd00::7]:80 -i", "-A -t [fd00::3]:80", "-a -t [fd00::3]:80 -r [fd00::4]:80 -g"]
    return lines + [f"-a -t 10.3.0.7:80 -r 10.5.{n // 250}.{n % 250 + 1}:80 -g" for n in range(2500)]


def test_listings_of_many_services(balancer: Balancer) -> None:
    """Of many services each listing equals that of ipvsadm 1.31, byte for byte, whichever interface it is read from."""
    done = balancer.restore("\n".join([*_TABLE, *_many_services()]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert balancer.our_listings(_LISTINGS) == balancer.real_listings(_LISTINGS)
    everything = ServerDetails(statistics=True, tunnels=True)
    with balancer.sandbox.session() as session:
        engine = open_engine(session)
        heads = engine.heads()
        quick = {service.spec.key: service for service in engine.services(heads, everything)}
        by_netlink = Engine(_WithoutOptions(session.channel()), ask_number(session.channel())())
        slow = {service.spec.key: service for service in by_netlink.services(heads, everything)}
        assert quick == slow
        known = {spec.key: len(slow[spec.key].servers) for spec, _ in heads if covers(spec.key)}
        asked = [(identity_of(key), count) for key, count in known.items()]
        found = sockopt_table.servers(session.channel(), asked, everything, repr)
        left = [key.text for key, rows in zip(known, found, strict=True) if rows is None]
        assert engine.count() == sum(1 + len(service.servers) for service in slow.values())
    assert sorted(left) == sorted(
        ["TCP  10.0.0.1:80", "TCP  10.3.0.9:80", *(f"FWM  {n + 101}" for n in range(30) if n % 3)]
    )
    again = balancer.restore(balancer.table(), "--replace")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_daemon(balancer: Balancer) -> None:
    """A synchronisation daemon is started, listed as by the real program, and stopped."""
    balancer.do("--start-daemon master --mcast-interface lo --syncid 7")
    listed = balancer.ours("-L --daemon").stdout
    assert listed == balancer.real("-Ln", "--daemon").stdout
    assert listed == ("master sync daemon (mcast=lo, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n")
    balancer.do("--stop-daemon master")
    assert balancer.ours("-L --daemon").stdout == ""


def test_the_guides_lines(balancer: Balancer) -> None:
    """The guide's command lines, in long options, do what they say."""
    balancer.do("--add-service --tcp-service 172.17.0.7:80 --scheduler rr --persistent 3000")
    assert balancer.table() == "-A -t 172.17.0.7:80 -s rr -p 3000\n"
    balancer.do("--edit-service --tcp-service 172.17.0.7:80 --scheduler rr --persistent 5000")
    assert balancer.table() == "-A -t 172.17.0.7:80 -s rr -p 5000\n"
    balancer.do("--add-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80 --weight 100")
    added = "-A -t 172.17.0.7:80 -s rr -p 5000\n-a -t 172.17.0.7:80 -r 172.17.0.4:80 -m -w 100\n"
    assert balancer.table() == added
    balancer.do("--edit-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80 --weight 200")
    assert balancer.table() == added.replace("-w 100", "-w 200")
    assert balancer.ours("--list").stdout == balancer.real("-Ln").stdout
    balancer.do("--delete-server --tcp-service 172.17.0.7:80 --real-server 172.17.0.4:80")
    balancer.do("--set 100 100 200")
    assert balancer.real("-Ln", "--timeout").stdout == "Timeout (tcp tcpfin udp): 100 100 200\n"
    balancer.do("--delete-service --tcp-service 172.17.0.7:80")
    assert balancer.table() == ""
    assert balancer.restore("-A -t 10.10.11.12:100 -s rr -p 3000\n").returncode == 0
    assert balancer.table() == "-A -t 10.10.11.12:100 -s rr -p 3000\n"


def test_json(balancer: Balancer) -> None:
    """--format json holds the same table as one line."""
    balancer.do("-A -t 10.0.0.1:80 -s rr -p 60", "-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -w 3")
    done = balancer.sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-L", "--format", "json", balancer.sandbox.id)
    service = json.loads(done.stdout)[0]
    assert done.stdout.count("\n") == 1
    assert {key: service[key] for key in ("protocol", "address", "port", "scheduler", "persistence")} == {
        "protocol": "TCP", "address": "10.0.0.1", "port": 80, "scheduler": "rr", "persistence": 60,
    }  # fmt: skip
    assert [(server["address"], server["port"], server["weight"]) for server in service["servers"]] == [
        ("10.0.0.2", 8080, 3)
    ]


_NO_END = "write 10.0.0.1:80 or [fd00::1]:80; names are not looked up, the host's mean nothing in the container"
_PORT = "it must be a number, 0-65535"
_BAD = {
    "-A -t 10.0.0.9:0": "service TCP 10.0.0.9:0 has port 0; only a persistent service can have that; give 1-65535",
    "-A -t 10.0.0.9:65536": f"the port of virtual service '10.0.0.9:65536' is '65536'; {_PORT}",
    "-A -t web:80": f"virtual service 'web:80' is no address and port; {_NO_END}",
    "-A -t 10.0.0.9:http": f"the port of virtual service '10.0.0.9:http' is 'http'; {_PORT}",
    "-A -t 10.0.0.9:80 -s foo": (
        "scheduler 'foo' is unknown; one of rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos"
    ),
    "-A -t 10.0.0.9:80 -p 0": "the persistence is '0'; it must be a number, 1-2678400",
    "-A -t 10.0.0.9:80 -p 2678401": "the persistence is '2678401'; it must be a number, 1-2678400",
    "-a -t 10.0.0.1:80 -r 10.0.0.3:80 -w -1": "the weight is '-1'; it must be a number, 0-65535",
    "-a -t 10.0.0.1:80 -r 10.0.0.3:80 -w 65536": "the weight is '65536'; it must be a number, 0-65535",
    "--set -1 0 0": "the TCP timeout is '-1'; it must be a number, 0-1296000",
    "--set 0 1296001 0": "the TCPFIN timeout is '1296001'; it must be a number, 0-1296000",
    "--set 1 2": "--set needs 3 values",
    "-a -t 10.0.0.1:80": "--add-server lacks its server; give -r ADDRESS:PORT",
    "-A -t 10.0.0.9:80 -r 10.0.0.2:80": "option --real-server does not go with --add-service",
    "-A -D -t 10.0.0.9:80": "--add-service and --delete-service are two commands; give one at a time",
    "-A": "--add-service lacks its service; give -t, -u, --sctp-service or -f",
    "-A -t 10.0.0.9:80 -u 10.0.0.9:80": "--tcp-service and --udp-service exclude each other",
    "-A -t 10.0.0.9:80 -s rr -s wrr": "--scheduler is given twice",
    "-A -t 10.0.0.9:80 --nosuch": "option '--nosuch' is unknown to ipvsadm",
    "-A -t 10.0.0.9:80 junk": "'junk' is one word too many for --add-service",
    "-a -t [fd00::5]:80 -r 10.0.0.3:80 -m": (
        "server 10.0.0.3:80 and service TCP [fd00::5]:80 are of different address families; "
        "only tunnelling (-i) can cross them"
    ),
    "-A -t '10.0.0.9:80": "the command line cannot be split into words: no closing quotation",
    "": "there is no ipvsadm command; one such as '-L' or '-A -t 10.0.0.1:80 -s rr' is needed",
    "-A -t 10.0.0.9:80 " + "x" * 100_000: "a command line of 100018 characters; at most 65536 are possible",
    "-A -t 10.0.0.9:80\x07": "the command line holds control characters",
}


def test_bad_words(balancer: Balancer) -> None:
    """Wrong words are refused in one line, and the table is what it was."""
    balancer.do("-A -t 10.0.0.7:80 -s rr")
    before = balancer.table()
    for words, reason in _BAD.items():
        done = balancer.ours(words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"kata-runtime: {reason}\n"), words
        assert balancer.table() == before, words


def test_refusals_of_the_kernel(balancer: Balancer) -> None:
    """A command that contradicts the table fails with a message that names the container, and changes nothing."""
    balancer.do("-A -t 10.0.0.1:80", "-a -t 10.0.0.1:80 -r 10.0.0.2:80")
    before = balancer.table()
    where = f"in container {balancer.sandbox.id[:12]}"
    shown = "-L shows those that do"
    for words, reason in {
        "-A -t 10.0.0.1:80": f"service TCP 10.0.0.1:80 exists already {where}; edit it with -E",
        "-D -t 9.9.9.9:1": f"service TCP 9.9.9.9:1 does not exist {where}; {shown}",
        "-E -t 9.9.9.9:1": f"service TCP 9.9.9.9:1 does not exist {where}; {shown}",
        "-Z -t 9.9.9.9:1": f"service TCP 9.9.9.9:1 does not exist {where}; {shown}",
        "-L -t 9.9.9.9:1": f"service TCP 9.9.9.9:1 does not exist {where}; {shown}",
        "-a -t 9.9.9.9:1 -r 10.0.0.2:80": f"service TCP 9.9.9.9:1 does not exist {where}; {shown}",
        "-a -t 10.0.0.1:80 -r 10.0.0.2:80": (
            f"service TCP 10.0.0.1:80 has server 10.0.0.2:80 already {where}; edit it with -e"
        ),
        "-e -t 10.0.0.1:80 -r 10.0.0.3:80": f"service TCP 10.0.0.1:80 has no server 10.0.0.3:80 {where}",
        "-d -t 10.0.0.1:80 -r 10.0.0.3:80": f"service TCP 10.0.0.1:80 has no server 10.0.0.3:80 {where}",
        "-A -t 10.0.0.8:80 -s twos": "the container's kernel has no scheduler twos",
    }.items():
        done = balancer.ours(words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"kata-runtime: {reason}\n"), words
    assert balancer.table() == before
