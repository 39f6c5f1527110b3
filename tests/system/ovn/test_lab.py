"""The lab itself: whatever ends it, nothing of it is left; and its errors say what its daemons were doing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab.endpoint import endpoint
from lab.host import INTEGRATION_BRIDGE
from lab.logical_switch import LogicalSwitch
from lab.namespace import LabError
from lab.ovn_lab import ovn_lab
from tests.system.conftest import network_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

# Connects several times from the same port.
_CLIENT = """
import socket, sys
for _ in range(3):
    with socket.socket() as client:
        client.settimeout(5)
        client.bind(("", 40000))
        print(client.connect_ex((sys.argv[1], 8080)))
"""


def _left(prefix: str) -> list[str]:
    """Namespaces and directories whose names begin with ``prefix``."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    places = [path.name for path in Path(tempfile.gettempdir()).iterdir()]
    return [name for name in [*names.splitlines(), *places] if name.startswith(prefix)]


def _runs(pid: int) -> bool:
    """Whether a process has not ended; what nobody has waited for yet has (proc(5), state Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_is_left(unique: Callable[[str], str]) -> None:
    """An error inside, and a host that cannot be made, leave no process, namespace or directory."""
    prefix = unique("gone")
    pids: list[int] = []

    def fails_inside() -> None:
        with ovn_lab(prefix, 1) as lab:
            (host,) = lab.hosts
            pids.extend(daemon.pid for daemon in (*host.daemons, *lab.central.daemons))
            assert all(_runs(pid) for pid in pids)
            raise LabError("inside")

    with pytest.raises(LabError, match=r"^inside$"):
        fails_inside()
    with (
        network_namespace(f"{prefix}b-host2"),
        pytest.raises(LabError, match=f"{prefix}b-host2.*File exists"),
        ovn_lab(f"{prefix}b", 2),
    ):
        raise AssertionError
    assert (len(pids), [pid for pid in pids if _runs(pid)], _left(prefix)) == (6, [], [])


def test_errors_tell_what_daemons_do(unique: Callable[[str], str]) -> None:
    """When ovs-vswitchd is stopped or killed, the error of the ovs-vsctl that waits for it says so, with its log."""
    with ovn_lab(unique("told"), 1) as lab:
        (host,) = lab.hosts
        errors = []
        for number in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(host.switch.pid, number)
            with pytest.raises(LabError) as caught:
                host.vsctl("--timeout=1", "set", "Bridge", INTEGRATION_BRIDGE, f"external_ids:sent={number}")
            errors.append(str(caught.value).splitlines())
        switch = f"ovs-vswitchd (process {host.switch.pid})"
        last = host.switch.log().splitlines()[-1]
        report = lab.report()
    stopped, killed = errors
    assert f"{switch} runs" in stopped
    assert any(line.startswith("ovs-vswitchd: T, ") and "do_signal_stop" in line for line in stopped)
    assert any(line.startswith("ovn-controller: S, ") for line in stopped)
    assert [line for line in report.splitlines() if "(process" in line][-2:] == [
        f"{host.name}: {switch} has ended",
        f"{host.name}: ovn-controller (process {host.controller.pid}) runs",
    ]
    assert killed[killed.index(f"{switch} has ended") + 1 :].count(last) == stopped.count(last) == 1


def test_a_refused_client_uses_its_port_again(unique: Callable[[str], str]) -> None:
    """ovs-vswitchd outlives a client whose connections, which rules of OVN allow, are refused and look the same."""
    with ovn_lab(unique("port"), 1) as lab, ExitStack() as stack:
        (host,) = lab.hosts
        network = LogicalSwitch(lab.central, "net", 7, lab.underlay.guest_mtu)
        for direction in ("from-lport", "to-lport"):
            lab.central.nbctl("--wait=hv", "acl-add", network.name, direction, "1000", "ip4", "allow-related")
        ports = network.add_ports("client", "server")
        client, _ = [stack.enter_context(endpoint(host, unique("end"), port, network.mtu)) for port in ports]
        outcomes = [client.run("python3", "-c", _CLIENT, ports[1].address)]
        host.restart_switch()
        lab.central.settle()
        outcomes.append(client.run("python3", "-c", _CLIENT, ports[1].address))
    assert outcomes == [f"{errno.ECONNREFUSED}\n" * 3] * 2
