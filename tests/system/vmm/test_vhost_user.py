"""NICs of a real DPDK back end: dpdk-testpmd that answers ARP and pings (its icmpecho mode)."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic
from tests.system.vmm.conftest import qemu_state, settled_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Namespace, Sandbox

_START_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
# Both threads on one processor, no shared files: several may run, and none outlives its test.
_TESTPMD = (
    "dpdk-testpmd --no-huge -m 128 --no-pci --no-shconf --no-telemetry --lcores=0@0,1@0 "
    "--vdev=net_vhost0,iface={socket},queues={queues} -- "
    "--forward-mode=icmpecho --port-topology=loop --rxq={queues} --txq={queues} --nb-cores=1 --total-num-mbufs=8192"
)


class BackEnd:
    """A testpmd that listens at ``path``."""

    def __init__(self, path: Path, queues: int) -> None:
        self.path = path
        self._argv = _TESTPMD.format(socket=path, queues=queues).split()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; anybody may connect to its socket."""
        with open(f"{self.path}.log", "wb") as log:
            # It ends when its standard input does.
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=log, stderr=log, umask=0, cwd=self.path.parent
            )
        end = time.monotonic() + _START_SECONDS
        while not self._listens():
            assert time.monotonic() < end, Path(f"{self.path}.log").read_text()
            try:
                self._process.wait(_PAUSE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(Path(f"{self.path}.log").read_text())

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def kill(self) -> None:
        """End it without warning; its socket stays, and nobody listens there."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def back_end(path: Path, queues: int) -> Iterator[BackEnd]:
    made = BackEnd(path, queues)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def _document(path: object, queues: int = 0, device: str = "vhost0") -> dict[str, object]:
    made = nic(device, "eth0", "172.30.0.3/16", vhostUserSocket=str(path))
    return {**made, "queues": queues} if queues else made


def _ping(sandbox: Sandbox) -> None:
    """Three answers; the first ones may be lost while QEMU connects again."""
    done = sandbox.guest("ping", "-q", "-c", "3", "-w", "30", "172.30.0.9")
    assert (done.returncode, " 3 received" in done.stdout) == (0, True), done.stdout


def _refused(sandbox: Sandbox, document: object, reason: str) -> None:
    before = sandbox.snapshot()
    done = sandbox.network("add-iface", document)
    assert (done.returncode, done.stdout, done.stderr) == (1, "null\n", f"kata-runtime: {reason}\n")
    assert sandbox.snapshot() == before


@pytest.mark.parametrize("queues", [1, 2])
def test_a_life_with_dpdk(queues: int, wide_sandbox: Sandbox, directory: Path) -> None:
    """Added, packets; back end killed and started again, packets; deleted: nothing is left in QEMU."""
    before = qemu_state(wide_sandbox)
    path = directory / "vhost-user.sock"
    with back_end(path, queues) as started:
        done = wide_sandbox.network("add-iface", _document(path, queues))
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {
            "device": "vhost0",
            "name": "eth0",
            "IPAddresses": [{"Family": 2, "Address": "172.30.0.3", "Mask": "16"}],
            "mtu": 1500,
            "hwAddr": "02:42:20:6e:03:01",
            "vhostUserSocket": str(path),
            "queues": queues,
            "pciAddr": "01.0/00",
        }
        _ping(wide_sandbox)
        shown = wide_sandbox.guest("ethtool", "-l", "eth0").stdout.split()
        assert shown[-1] == str(queues)
        started.kill()
        assert wide_sandbox.guest("cat", "/sys/class/net/eth0/operstate").stdout == "down\n"
        path.unlink()
        started.start()
        _ping(wide_sandbox)
        listed = wide_sandbox.network("list-ifaces")
        assert listed.stdout == ('[{"name":"eth0","mac":"02:42:20:6e:03:01","ip":["172.30.0.3/16"],"mtu":1500}]\n')
        done = wide_sandbox.network("del-iface", {"name": "eth0"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")
    assert settled_state(wide_sandbox, before) == before


def test_a_back_end_that_is_gone(wide_sandbox: Sandbox, directory: Path) -> None:
    """A NIC whose back end has ended is deleted like any other, and the container lives on."""
    before = qemu_state(wide_sandbox)
    with back_end(directory / "gone.sock", 1) as started:
        assert wide_sandbox.network("add-iface", _document(started.path)).returncode == 0
    done = wide_sandbox.network("del-iface", {"name": "eth0"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "null\n", "")
    assert settled_state(wide_sandbox, before) == before


def test_beside_a_tap_of_that_name(wide_sandbox: Sandbox, directory: Path, namespace: Namespace) -> None:
    """With a socket, device is a label only: a TAP of that name is left alone."""
    namespace.tap("tap0")
    tap = namespace.run("ip", "-details", "link", "show", "tap0").stdout
    with back_end(directory / "both.sock", 1) as started:
        assert wide_sandbox.network("add-iface", _document(started.path, device="tap0")).returncode == 0
        _ping(wide_sandbox)
        assert namespace.run("ip", "-details", "link", "show", "tap0").stdout == tap
        assert wide_sandbox.network("del-iface", {"name": "eth0"}).returncode == 0


def test_more_queues_than_the_back_end_has(wide_sandbox: Sandbox, directory: Path) -> None:
    """What the back end says of its queue pairs is the limit; DPDK always says 128."""
    with back_end(directory / "few.sock", 1) as started:
        reason = f"the back end at '{started.path}' has 128 queue pairs, not 129; start it with more, or ask for fewer"
        _refused(wide_sandbox, _document(started.path, 129), reason)


def _nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    path.chmod(0o666)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "there is no socket '{}'; start the back end first"),
        (Path.touch, "vhostUserSocket '{}' is no socket; give the one that the back end listens on"),
        (_nobody_listens, "nobody listens at '{}'; start the back end first"),
    ],
    ids=["missing", "file", "nobody listens"],
)
def test_no_back_end(make: Callable[[Path], None], reason: str, wide_sandbox: Sandbox, directory: Path) -> None:
    """A path without a back end is refused before the machine is touched."""
    path = directory / "absent.sock"
    make(path)
    _refused(wide_sandbox, _document(path), reason.format(path))


def test_a_back_end_that_may_not_be_used(wide_sandbox: Sandbox, directory: Path) -> None:
    """QEMU runs as a user of its own, and a socket closed to it is refused with what to open."""
    path = directory / "closed.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        path.chmod(0o600)
        with wide_sandbox.session() as session:
            user = Path(f"/proc/{session.record.pid}").stat().st_uid
        assert user != 0
        reason = (
            f"QEMU's user {user} may not connect to '{path}'; "
            "let others write to the socket and search its directories, for example by the back end's umask"
        )
        _refused(wide_sandbox, _document(path), reason)


def test_a_silent_back_end(wide_sandbox: Sandbox, directory: Path) -> None:
    """QEMU would wait for it with the machine stopped; it is given up before QEMU knows of it."""
    path = directory / "silent.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        path.chmod(0o666)
        reason = f"an answer of the back end at '{path}' did not happen within 3 s"
        _refused(wide_sandbox, _document(path), reason)


_LONG = "/" + "x" * 127
_PARTS = "parts are letters, digits, '-', '_' and '.', but neither '.' nor '..'"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("run/back.sock", "vhostUserSocket is 'run/back.sock'; it must be an absolute path"),
        ("/run/../back.sock", f"vhostUserSocket is '/run/../back.sock': '..' cannot be a part of it; {_PARTS}"),
        (
            _LONG[:108],
            (
                f"vhostUserSocket has 108 bytes: '{_LONG[:64]}'... (108 characters); "
                "the kernel connects to socket paths of at most 107 bytes; use a shorter one"
            ),
        ),
        (
            _LONG + "x",
            f"vhostUserSocket has 129 bytes: '{_LONG[:64]}'... (129 characters); at most 128 are allowed",
        ),
    ],
    ids=["relative", "dots", "108 bytes", "129 bytes"],
)
def test_paths_that_cannot_be(path: str, reason: str, wide_sandbox: Sandbox) -> None:
    """Each wrong path is refused by one line that says what would be right."""
    _refused(wide_sandbox, _document(path), reason)
