"""A hundred commands at the same time, on one container and on four: each as if it ran alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.full_queue import fill_queue
from tests.system.conftest import booted, nic

from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Completed, Namespace, Sandbox

_NICS = 8
_SERVICES = 6
_RIVALS = 4
_COMMANDS = 100
_LOCK_SECONDS = "100"
_CONNECTING_SECONDS = 9
_IPVSADM = ("kata-ipvs", "ipvsadm")


class _Done(NamedTuple):
    """A command that has ended."""

    words: tuple[str, ...]
    status: int
    output: str
    errors: list[str]


class _Client:
    """Runs commands one after the other, as one of many does."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.done: list[_Done] = []

    def run(self, *words: str, stdin: str = "") -> _Done:
        """Run a command; what it says of its waiting is left out of its errors."""
        ran: Completed = self.sandbox.cli("--lock-timeout", _LOCK_SECONDS, *words, stdin=stdin)
        waiting = f"kata-runtime: waiting for container {self.sandbox.id}, which "
        errors = [line for line in ran.stderr.splitlines() if not line.startswith(waiting)]
        self.done.append(_Done(words, ran.returncode, ran.stdout, errors))
        return self.done[-1]

    def network(self, verb: str, document: object = None) -> _Done:
        """Run a kata-network command."""
        if document is None:
            return self.run("kata-network", verb, self.sandbox.id)
        return self.run("kata-network", verb, self.sandbox.id, "-", stdin=json.dumps(document))

    def ipvs(self, parameters: str) -> _Done:
        """Run an ipvsadm command."""
        return self.run(*_IPVSADM, "--parameters", parameters, self.sandbox.id)


def _names(listed: _Done) -> list[str]:
    assert (listed.status, listed.errors) == (0, [])
    return [row["name"] for row in json.loads(listed.output) or []]


def _nic_of_its_own(client: _Client, number: int) -> None:
    """Add a NIC, see it, route over it, see that, delete it."""
    document = nic(f"tap{number}", f"eth{number}", f"10.0.{number}.3/24", mac=f"02:42:20:6e:03:{number:02x}")
    route = {"dest": f"10.{100 + number}.0.0/16", "gateway": f"10.0.{number}.1", "device": f"eth{number}"}
    assert client.network("add-iface", document).errors == []
    assert f"eth{number}" in _names(client.network("list-ifaces"))
    assert client.network("add-route", route).errors == []
    assert route in json.loads(client.network("list-routes").output)
    assert client.network("del-iface", document)[1:] == (0, "null\n", [])


def _service_of_its_own(client: _Client, number: int) -> None:
    """Add a service and a server, see them, delete them, see that."""
    service = f"-t 10.9.0.{number}:80"
    assert client.ipvs(f"-A {service} -s rr")[1:] == (0, "", [])
    assert client.ipvs(f"-a {service} -r 10.8.0.{number}:80 -w {number}")[1:] == (0, "", [])
    assert f"-a {service} -r 10.8.0.{number}:80 -m -w {number}\n" in client.ipvs("-S").output
    assert client.ipvs(f"-D {service}")[1:] == (0, "", [])
    assert f"10.9.0.{number}:80" not in client.ipvs("-L").output


def _rival(client: _Client, number: int) -> None:
    """Want what others want."""
    client.network("add-iface", nic("rivals", f"rival{number}", mac=f"02:42:20:6e:04:{number:02x}"))
    client.ipvs("-A -t 10.7.0.1:80 -s rr")
    client.run(*_IPVSADM, "--restore", "-", client.sandbox.id, stdin=f"-A -f 7 -s rr\n-A -f {100 + number}\n")
    assert client.run("kata-ipvs", "cleanup", "--parameters", "-p sctp", client.sandbox.id).status == 0
    _names(client.network("list-ifaces"))


def _onlooker(client: _Client, _number: int) -> None:
    """Look at everything, and run something in the container."""
    assert json.loads(client.run("state", client.sandbox.id).output)["status"] == "running"
    assert client.run("exec", client.sandbox.id, "echo", "here")[1:] == (0, "here\n", [])
    _names(client.network("list-ifaces"))
    assert client.network("list-routes").status == 0
    assert client.run("list", "--quiet").status == 0


_PARTS: list[tuple[Callable[[_Client, int], None], int]] = [
    (_nic_of_its_own, _NICS),
    (_service_of_its_own, _SERVICES),
    (_rival, _RIVALS),
    (_onlooker, 2),
]


@pytest.fixture
def sandboxes(sandbox: Sandbox, unique: Callable[[str], str]) -> Iterator[Callable[[int], list[Sandbox]]]:
    """Gives this many running sandboxes, the shared one first."""
    with ExitStack() as ends:

        def more(count: int) -> list[Sandbox]:
            with ThreadPoolExecutor(count) as pool:
                makers = [booted(sandbox.runtime, unique("many")) for _ in range(count - 1)]
                return [sandbox, *pool.map(ends.enter_context, makers)]

        yield more


def _waited(sandbox: Sandbox, client: Callable[[], object]) -> str:
    """What a command says that waits while ``client`` starts its own; the container is free from then on."""
    argv = sandbox.runtime.argv("kata-network", "list-routes", sandbox.id)
    with sandbox.session():
        client()
        waiting = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        told = waiting.stderr.readline()
    _, errors = waiting.communicate(timeout=120)
    assert (waiting.returncode, errors) == (0, "")
    return told


def _one_won(clients: list[_Client], words: str) -> None:
    """Of the commands that wanted the same one succeeded, and the others were refused because of it."""
    done = [done for client in clients for done in client.done if words in " ".join(done.words)]
    assert len(done) == _RIVALS
    assert sorted(one.status for one in done) == [0] + [1] * (_RIVALS - 1)
    for one in done:
        if one.status:
            # Of another container that opened the TAP and has not recorded it yet, only the kernel knows.
            reasons = ("already", "exists", "held by another process")
            assert any(reason in " ".join(one.errors) for reason in reasons), one


@pytest.mark.parametrize("count", [1, 4])
def test_hundred_commands(sandboxes: Callable[[int], list[Sandbox]], namespace: Namespace, count: int) -> None:
    """100 commands of 20 clients: none waits for ever or is refused without reason, and each sees what it did."""
    made = sandboxes(count)
    for number in range(_NICS):
        namespace.tap(f"tap{number}", f"10.0.{number}.1/24")
    namespace.tap("rivals")
    starts = [(part, number) for part, clients in _PARTS for number in range(clients)]
    clients = [_Client(made[place % count]) for place in range(len(starts))]
    try:
        with ThreadPoolExecutor(len(starts)) as pool:
            running = []

            def start() -> None:
                for client, (part, number) in zip(clients, starts, strict=True):
                    running.append(pool.submit(part, client, number))

            told = _waited(made[0], start)
            for one in running:
                one.result()
        assert told.startswith(f"kata-runtime: waiting for container {made[0].id}, which process ")
        assert sum(len(client.done) for client in clients) == _COMMANDS
        rivals = clients[_NICS + _SERVICES : _NICS + _SERVICES + _RIVALS]
        _one_won(rivals, "add-iface")
        for owner in made:
            own = [client for client in rivals if client.sandbox is owner]
            names = [name for client in rivals[:1] for name in _names(_Client(owner).network("list-ifaces"))]
            added = [one for client in own for one in client.done if "add-iface" in one.words and not one.status]
            assert names == [json.loads(one.output)["name"] for one in added]
            saved = _Client(owner).ipvs("-S").output.splitlines()
            # One batch was whole and the others nothing.
            assert len([line for line in saved if line.startswith("-A -f 1")]) == 1
            assert sorted(line for line in saved if not line.startswith("-A -f 1")) == [
                "-A -f 7 -s rr",
                "-A -t 10.7.0.1:80 -s rr",
            ]
    finally:
        for owner in made:
            for name in _names(_Client(owner).network("list-ifaces")):
                owner.network("del-iface", {"name": name})
            owner.cli(*_IPVSADM, "--parameters", "-C", owner.id)


def test_abandoned_connections(sandbox: Sandbox) -> None:
    """A command whose connection finds QEMU's queue full of abandoned ones waits for room and succeeds."""
    pid = load_record(str(sandbox.directory)).pid
    control = SandboxPaths(str(sandbox.directory)).control
    before = sandbox.network("list-routes").stdout
    os.kill(pid, signal.SIGSTOP)
    try:
        fill_queue(control)
        argv = sandbox.runtime.argv("kata-network", "list-routes", sandbox.id)
        listing = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + _CONNECTING_SECONDS
        while _waits_in(listing.pid) != "unix_wait_for_peer":
            assert listing.poll() is None, listing.communicate()
            assert time.monotonic() < deadline
            os.sched_yield()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert listing.communicate(timeout=120) == (before, "")


def _waits_in(pid: int) -> str:
    """The function of the kernel in which a process waits (proc(5), ``wchan``)."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as name:
        return name.read()
