"""What a short command may load: start-up is most of its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.quality.trees import SOURCE
from tests.unit.guest.scripted import scripted_agent
from tests.unit.typed_addresses import mac

from kata_runtime.guest import wire
from kata_runtime.guest.netlink_block import unpack_netlink
from kata_runtime.netlink.local import LocalTransport
from kata_runtime.netlink.transport import Block, Family
from kata_runtime.sandbox.process import start_time_of
from kata_runtime.sandbox.record import NicRecord, Record, save_record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.guest.scripted import Agent

TOO_HEAVY = (
    "argparse", "asyncio", "concurrent.futures", "ctypes", "email", "importlib.metadata", "inspect", "ipaddress",
    "logging", "multiprocessing", "qemu", "random", "shutil", "ssl", "subprocess", "tarfile", "tempfile", "tomllib",
    "urllib.request", "typing", "re", "json", "socket", "selectors", "dataclasses", "datetime", "string", "enum",
    "signal", "contextlib", "functools", "collections", "types", "operator", "pathlib", "resource",
)  # fmt: skip
_SCRIPT = """
import sys
sys.path.append(sys.argv.pop(1))
from kata_runtime.cli.main import main
status = main()
print(status, *sorted(sys.modules), file=sys.stderr)
"""


def _list_ifaces(root: Path, container_id: str) -> tuple[str, str, list[str]]:
    """Status, output, and which of the slow modules were loaded."""
    argv = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(SOURCE), "--root", str(root)]
    argv += ["kata-network", "list-ifaces", container_id]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    status, *loaded = done.stderr.splitlines()[-1].split()
    return status, done.stdout, sorted(set(loaded) & set(TOO_HEAVY))


def test_a_failure_loads_little(tmp_path: Path) -> None:
    """A list-ifaces that finds no container has loaded none of the modules known to be slow."""
    assert _list_ifaces(tmp_path, "nosuch") == ("1", "null\n", [])


def _agent(agent: Agent) -> None:
    """Answer netlink as a guest does that has this host's interfaces."""
    agent.greet()
    with LocalTransport() as kernel:
        while True:
            kind, request, payload = agent.receive()
            assert kind == wire.NETLINK
            family, last, one_by_one, data = unpack_netlink(payload)
            for piece in kernel.exchange(Family(family), [Block(bytes(data), last, one_by_one)]):
                agent.send(wire.DATA, request, piece)
            agent.send(wire.DONE, request, wire.pack_done(0))


def test_a_listing_loads_little(tmp_path: Path) -> None:
    """Nor has one that lists a NIC, after the guest's kernel has reported it."""
    tmp_path.chmod(0o700)
    directory = tmp_path / "web"
    directory.mkdir()
    (directory / "lock").touch()
    nic = NicRecord("lo", "tap0", mac("02:00:00:00:00:01"), 1500, (), 0)
    save_record(str(directory), Record("web", pid=os.getpid(), start_time=start_time_of(os.getpid()) or 0, nics=(nic,)))
    with scripted_agent(directory / "control.sock", _agent):
        status, listed, heavy = _list_ifaces(tmp_path, "web")
    (row,) = json.loads(listed)
    assert (status, row["name"], row["mac"], heavy) == ("0", "lo", "00:00:00:00:00:00", [])


_ADD_IFACE = (
    "cli.network_commands", "cli.network_json", "network.requests", "network.interfaces", "network.endpoint.tap",
    "network.namespace", "sandbox.session", "sandbox.neighbours", "vmm.hotplug", "vmm.monitor",
)  # fmt: skip
_RESTORE = ("cli.ipvs_commands", "ipvs.commands", "ipvs.batch", "sandbox.session")
_ENGINES = ("oci.create", "oci.operations", "oci.removal", "oci.exec_process", "oci.run")
_IMPORTS = """
import sys
source, *names = sys.argv[1:]
sys.path.append(source)
for name in names:
    __import__(f"kata_runtime.{name}")
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize("names", [_ADD_IFACE, _RESTORE], ids=["add-iface", "restore"])
def test_changes_load_little(names: tuple[str, ...]) -> None:
    """What adds a NIC, and what restores virtual servers, brings none of the modules known to be slow along."""
    argv = [sys.executable, "-I", "-S", "-c", _IMPORTS, str(SOURCE), *names]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(set(loaded) & set(TOO_HEAVY)) == []


def test_commands_of_engines_load_little() -> None:
    """What creates, starts, ends and enters containers brings none of the slow modules along but one."""
    argv = [sys.executable, "-I", "-S", "-c", _IMPORTS, str(SOURCE), *_ENGINES]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & set(TOO_HEAVY) == {"resource"}


def test_run_loads_little(tmp_path: Path) -> None:
    """A run loads, before it starts a VM, none of the slow modules but one; its configuration is a usual one."""
    (tmp_path / "taken").mkdir()
    config = tmp_path / "configuration.toml"
    config.write_text('[hypervisor.qemu]\ndefault_memory = 512\n# note\ntemplate = "auto"\n')
    argv = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(SOURCE), "--root", str(tmp_path)]
    argv += ["--kata-config", str(config), "run", "--detach", "taken"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    status, *loaded = done.stderr.splitlines()[-1].split()
    assert "container taken exists already" in done.stderr
    assert (status, set(loaded) & set(TOO_HEAVY)) == ("1", {"resource"})
