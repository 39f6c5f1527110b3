"""NICs that get their address by DHCP. Server and client are in one guest, on two NICs of one bridge."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import nic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Completed, Namespace, Sandbox

_SERVER_MAC = "02:42:20:6e:04:01"
_ASKED = nic("tapc", "eth0", dhcp=True)
# With option 121 the router does not count (RFC 3442).
_CONFIGURATION = """\
start 10.9.0.20
end 10.9.0.20
interface srv0
pidfile /run/udhcpd.pid
lease_file /run/udhcpd.leases
option subnet 255.255.255.0
option router 10.9.0.254
option mtu 1400
option staticroutes 10.50.0.0/16 10.9.0.9, 0.0.0.0/0 10.9.0.1
option lease 4
min_lease 4
"""


@contextmanager
def _bridge(namespace: Namespace) -> Iterator[None]:
    namespace.run("ip", "link", "add", "br0", "type", "bridge")
    namespace.run("ip", "link", "set", "br0", "up")
    for name in ("taps", "tapc"):
        namespace.tap(name)
        namespace.run("ip", "link", "set", name, "master", "br0")
    yield


@contextmanager
def _server(sandbox: Sandbox) -> Iterator[None]:
    assert sandbox.network("add-iface", nic("taps", "srv0", "10.9.0.2/24", mac=_SERVER_MAC)).stderr == ""
    script = "cat >/run/udhcpd.conf && : >/run/udhcpd.leases && udhcpd /run/udhcpd.conf"
    done = sandbox.guest("sh", "-c", script, stdin=_CONFIGURATION)
    assert done.returncode == 0, done
    try:
        yield
    finally:
        sandbox.guest("sh", "-c", "kill $(cat /run/udhcpd.pid); rm -f /run/udhcpd.*")
        assert sandbox.network("del-iface", {"name": "srv0"}).stdout == "null\n"


def _clients(sandbox: Sandbox) -> str:
    return sandbox.guest("sh", "-c", "pidof udhcpc; ls /run/kata-dhcp | grep -v hook").stdout


def test_address_by_dhcp(sandbox: Sandbox, namespace: Namespace) -> None:
    """The NIC has the lease's address, routes and smaller MTU, keeps them by renewal, and its client goes with it."""
    with _bridge(namespace), _server(sandbox):
        done = sandbox.network("add-iface", _ASKED)
        assert (done.returncode, done.stderr) == (
            0,
            "kata-runtime: NIC 'eth0' has mtu 1400 instead of 1500, as its DHCP server says\n",
        )
        assert json.loads(done.stdout) == {
            "device": "tapc", "name": "eth0", "IPAddresses": [{"Family": 2, "Address": "10.9.0.20", "Mask": "24"}],
            "mtu": 1500, "hwAddr": "02:42:20:6e:03:01", "dhcp": True, "pciAddr": "01.1/00",
        }  # fmt: skip
        row = {"name": "eth0", "mac": "02:42:20:6e:03:01", "ip": ["10.9.0.20/24"], "mtu": 1400}
        assert json.loads(sandbox.network("list-ifaces").stdout)[1:] == [row]
        routes = json.loads(sandbox.network("list-routes").stdout)
        assert [route for route in routes if route["device"] == "eth0"] == [
            {"dest": "default", "gateway": "10.9.0.1", "device": "eth0"},
            {"dest": "10.9.0.0/24", "gateway": "", "device": "eth0"},
            {"dest": "10.50.0.0/16", "gateway": "10.9.0.9", "device": "eth0"},
        ]
        assert _clients(sandbox).split()[1:] == ["eth0.lease", "eth0.pid"]
        # The lease lasts 4 s; the client asks again after two, and the address is still there when it would have ended.
        wait = "n=0; while [ $n -lt 60 ]; do usleep 100000; n=$((n + 1)); done; ip -4 -o address show dev eth0"
        assert "10.9.0.20/24" in sandbox.guest("sh", "-c", wait).stdout
        assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
        assert _clients(sandbox) == ""


def test_no_server(sandbox: Sandbox, fresh_sandbox: Sandbox, namespace: Namespace) -> None:
    """Without a lease the NIC, or port with its TAP, is removed again, and everything is as it was."""
    port = {key: value for key, value in _ASKED.items() if key != "device"}
    commands: tuple[tuple[Sandbox, str, tuple[str, ...], object], ...] = (
        (sandbox, "add-iface", (), _ASKED),
        (fresh_sandbox, "add-port", ("--bridge", "br0"), port),
    )
    told = (
        "kata-runtime: no DHCP server gave NIC 'eth0' an address within 10 s; "
        "give IPAddresses, or see whether a server answers in the network of the device\n"
    )

    def run(asked: Sandbox, verb: str, options: tuple[str, ...], document: object) -> Completed:
        return asked.cli("kata-network", verb, asked.id, "-", *options, stdin=json.dumps(document))

    def look() -> list[object]:
        links = namespace.run("ip", "-j", "link", "show").stdout
        return [sorted(link["ifname"] for link in json.loads(links)), sandbox.snapshot(), fresh_sandbox.snapshot()]

    with _bridge(namespace):
        before = look()
        with ThreadPoolExecutor(2) as pool:
            ended = [running.result() for running in [pool.submit(run, *command) for command in commands]]
        assert [(done.returncode, done.stdout, done.stderr) for done in ended] == [(1, "null\n", told)] * 2
        assert look() == before
        assert (_clients(sandbox), _clients(fresh_sandbox)) == ("", "")
