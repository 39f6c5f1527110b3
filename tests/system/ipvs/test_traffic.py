"""Requests through the container as balancer: who answers them, and what tracking knows of them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Namespace, network_namespace, nic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.ipvs.conftest import Balancer

# Answers each connection and each datagram with its name, over IPv4 and IPv6.
_SERVER = """
import selectors, socket, sys
name = sys.argv[1].encode()
selector = selectors.DefaultSelector()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    opened = socket.socket(socket.AF_INET6, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    opened.bind(("::", 8080))
    if kind == socket.SOCK_STREAM:
        opened.listen(64)
    selector.register(opened, selectors.EVENT_READ, kind)
selector.register(sys.stdin, selectors.EVENT_READ, None)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data is None:
            sys.exit()
        if key.data == socket.SOCK_STREAM:
            connection, _ = key.fileobj.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + name)
            connection.close()
        else:
            _, peer = key.fileobj.recvfrom(1000)
            key.fileobj.sendto(name, peer)
"""
_CLIENT = """
import socket, sys
kind, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for _ in range(count):
    if kind == "tcp":
        with socket.create_connection((host, port), 10) as opened:
            opened.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            print(b"".join(iter(lambda: opened.recv(1000), b"")).rsplit(b"\\n", 1)[-1].decode())
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as opened:
            opened.settimeout(10)
            opened.connect((host, port))
            opened.send(b"?")
            print(opened.recv(1000).decode())
"""


class Town:
    """A client on the container's front NIC, three servers behind its back NIC."""

    def __init__(self, client: Namespace) -> None:
        self._client = client

    def ask(self, host: str, count: int, *, kind: str = "tcp", port: int = 80) -> Counter[str]:
        """How many of ``count`` requests each server answered."""
        done = self._client.run(sys.executable, "-c", _CLIENT, kind, host, str(port), str(count))
        return Counter(done.stdout.split())

    def is_refused(self, host: str) -> bool:
        """Whether a new connection fails."""
        return self._client.attempt(sys.executable, "-c", _CLIENT, "tcp", host, "80", "1").returncode != 0


@contextmanager
def _member(
    namespace: Namespace, stack: ExitStack, name: str, bridge: str, number: int, side: int
) -> Iterator[Namespace]:
    member = stack.enter_context(network_namespace(name))
    namespace.run(*f"ip link add to-{bridge}-{number} master {bridge} up type veth peer name eth0 netns {name}".split())
    member.run("ip", "address", "add", f"10.{side}.0.{number}/24", "dev", "eth0")
    member.run("ip", "address", "add", f"fd0{side}::{number}/64", "dev", "eth0", "nodad")
    member.run("ip", "link", "set", "eth0", "up")
    member.run("ip", "route", "add", "default", "via", f"10.{side}.0.1")
    member.run("ip", "-6", "route", "add", "default", "via", f"fd0{side}::1")
    yield member


@contextmanager
def _serving(member: Namespace, name: str) -> Iterator[None]:
    with subprocess.Popen(
        [*member.prefix, sys.executable, "-c", _SERVER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


@pytest.fixture
def town(balancer: Balancer, namespace: Namespace, unique: Callable[[str], str]) -> Iterator[Town]:
    """The container between two bridges: 10.1.0.0/24 and fd01::/64 in front, 10.2.0.0/24 and fd02::/64 behind."""
    sandbox = balancer.sandbox
    with ExitStack() as stack:
        for side, bridge in enumerate(("front", "back"), 1):
            namespace.run("ip", "link", "add", bridge, "type", "bridge")
            namespace.run("ip", "link", "set", bridge, "up")
            namespace.tap(f"tap-{bridge}")
            namespace.run("ip", "link", "set", f"tap-{bridge}", "master", bridge)
            document = nic(
                f"tap-{bridge}", bridge, f"10.{side}.0.1/24", f"fd0{side}::1/64", mac=f"02:00:00:00:00:0{side}"
            )
            assert sandbox.network("add-iface", document).stderr == ""
            stack.callback(sandbox.network, "del-iface", document)
        client = stack.enter_context(_member(namespace, stack, unique("cl"), "front", 9, 1))
        for number in (11, 12, 13):
            server = stack.enter_context(_member(namespace, stack, unique("sv"), "back", number, 2))
            stack.enter_context(_serving(server, f"s{number}"))
        yield Town(client)


def test_shares_of_requests(balancer: Balancer, town: Town) -> None:
    """Shares follow the weights; weight 0 and deletion end new connections; a persistent client sticks."""
    balancer.do("-A -t 10.1.0.1:80 -s wrr")
    for number, weight in ((11, 1), (12, 2), (13, 3)):
        balancer.do(f"-a -t 10.1.0.1:80 -r 10.2.0.{number}:8080 -w {weight}")
    assert town.ask("10.1.0.1", 60) == {"s11": 10, "s12": 20, "s13": 30}
    # The kernel brings its counters up to date every two seconds, perhaps between two looks at them.
    words = "-Ln", "-t", "10.1.0.1:80", "--stats"
    earlier, ours, later = balancer.real(*words), balancer.ours("-L -t 10.1.0.1:80 --stats"), balancer.real(*words)
    assert ours.stdout in (earlier.stdout, later.stdout)
    balancer.do("--edit-server -t 10.1.0.1:80 -r 10.2.0.13:8080 --weight 0")
    assert town.ask("10.1.0.1", 30) == {"s11": 10, "s12": 20}
    balancer.do("--delete-server -t 10.1.0.1:80 -r 10.2.0.12:8080")
    assert town.ask("10.1.0.1", 10) == {"s11": 10}
    balancer.do("-E -t 10.1.0.1:80 -s rr -p 300", "-e -t 10.1.0.1:80 -r 10.2.0.13:8080 -w 1")
    assert len(town.ask("10.1.0.1", 10)) == 1
    balancer.do("-D -t 10.1.0.1:80")
    assert town.is_refused("10.1.0.1")


def test_udp_and_ipv6(balancer: Balancer, town: Town) -> None:
    """Datagrams, and requests over IPv6, reach all servers in turn."""
    balancer.do("-A -u 10.1.0.1:53 -s rr", "-A -t [fd01::1]:80 -s rr")
    for number in (11, 12, 13):
        balancer.do(f"-a -u 10.1.0.1:53 -r 10.2.0.{number}:8080", f"-a -t [fd01::1]:80 -r [fd02::{number}]:8080")
    assert town.ask("10.1.0.1", 9, kind="udp", port=53) == {"s11": 3, "s12": 3, "s13": 3}
    assert town.ask("fd01::1", 9) == {"s11": 3, "s12": 3, "s13": 3}


def test_cleanup_drops_what_was_asked_for(balancer: Balancer, town: Town) -> None:
    """cleanup deletes the tracked connections of one destination and protocol, counts them, and no others."""
    balancer.do("-A -t 10.1.0.1:80 -s rr", "-A -u 10.1.0.1:53 -s rr", "-A -t [fd01::1]:80 -s rr")
    balancer.do("-a -t 10.1.0.1:80 -r 10.2.0.11:8080", "-a -u 10.1.0.1:53 -r 10.2.0.11:8080")
    balancer.do("-a -t [fd01::1]:80 -r [fd02::11]:8080")
    for protocol in ("tcp", "udp"):
        balancer.sandbox.cli("kata-ipvs", "cleanup", "--parameters", f"-p {protocol}", balancer.sandbox.id)
    town.ask("10.1.0.1", 5)
    town.ask("10.1.0.1", 3, kind="udp", port=53)
    town.ask("fd01::1", 4)

    def tracked() -> tuple[int, int, int]:
        lists = (
            balancer.sandbox.guest("conntrack", "-L", *words).stdout.splitlines()
            for words in (
                ("-d", "10.1.0.1", "-p", "tcp"),
                ("-d", "10.1.0.1", "-p", "udp"),
                ("-f", "ipv6", "-d", "fd01::1", "-p", "tcp"),
            )
        )
        tcp, udp, tcp6 = (len(lines) for lines in lists)
        return tcp, udp, tcp6

    def cleanup(words: str) -> tuple[int, str, str]:
        done = balancer.sandbox.cli("kata-ipvs", "cleanup", "--parameters", words, balancer.sandbox.id)
        return done.returncode, done.stdout, done.stderr

    assert tracked() == (5, 3, 4)
    told = "kata-runtime: {} connection-tracking entries deleted\n"
    assert cleanup("--orig-dst 10.1.0.1 --protonum tcp") == (0, "", told.format(5))
    assert tracked() == (0, 3, 4)
    assert cleanup("-d fd01::1 -p tcp") == (0, "", told.format(4))
    assert cleanup("-d 10.1.0.1 -p tcp") == (0, "", told.format(0))
    assert tracked() == (0, 3, 0)
    assert cleanup("-d 10.1.0.1 -p udp") == (0, "", told.format(3))


def test_replace_disturbs_nobody(balancer: Balancer, town: Town) -> None:
    """While --replace changes hundreds of rules around it, a service that stays loses no request."""
    balancer.renew()
    kept = "-A -t 10.1.0.1:80 -s rr\n-a -t 10.1.0.1:80 -r 10.2.0.11:8080 -m -w 1\n"
    others = [
        "".join(
            f"-A -t 10.7.{number // 250}.{number % 250}:{port} -s rr\n"
            f"-a -t 10.7.{number // 250}.{number % 250}:{port} -r 10.2.0.12:8080 -m -w 1\n"
            for number in range(500)
        )
        for port in (80, 81)
    ]
    assert balancer.restore(kept + others[0]).returncode == 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(town.ask, "10.1.0.1", 300)
        for turn in (1, 0, 1):
            assert balancer.restore(kept + others[turn], "--replace").returncode == 0
        assert asked.result() == {"s11": 300}
    # Each of them is still known, and to this server; counters (--stats) would lag behind by two seconds.
    shown = balancer.real("-Ln", "-t", "10.1.0.1:80").stdout.splitlines()[-1].split()
    assert shown[:4] == ["->", "10.2.0.11:8080", "Masq", "1"]
    assert int(shown[4]) + int(shown[5]) == 300
