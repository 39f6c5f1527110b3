"""A guest whose agent hangs."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

from tests.system.conftest import nic

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
_WAKING_NIC = nic("tap1", "eth1", "10.1.0.3/24", mac="02:42:20:6e:03:02")
_BOUND_SECONDS = 30
# Nobody outside can wake an agent that hangs, but a program in the guest can, when a datagram arrives.
_HANG = """
import os, signal, socket, sys
agent = int(sys.argv[1])
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.connect(("10.1.0.1", 9999))
os.kill(agent, signal.SIGSTOP)
channel.send(b"it hangs")
channel.recv(16)
os.kill(agent, signal.SIGCONT)
"""
_START = 'exec python3 -c "$0" $(pgrep -f "[k]ata_runtime.guest" | head -n 1)'
_WAKE = """
import socket, sys
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.bind(("10.1.0.1", 9999))
channel.settimeout(30)
print("ready", flush=True)
_, guest = channel.recvfrom(16)
print("it hangs", flush=True)
sys.stdin.readline()
channel.sendto(b"wake", guest)
"""


def test_hung_agent(sandbox: Sandbox, namespace: Namespace) -> None:
    """A command ends by its deadline with one line and no change; when the agent goes on, commands work."""
    namespace.tap("tap0", "10.0.0.1/24")
    namespace.tap("tap1", "10.1.0.1/24")
    assert sandbox.network("add-iface", _WAKING_NIC).stderr == ""
    record = (sandbox.directory / "record.json").read_text()
    waker = subprocess.Popen(
        [*namespace.prefix, "python3", "-c", _WAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    argv = sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", _START, _HANG)
    assert waker.stdout is not None
    assert waker.stdout.readline() == "ready\n"
    with waker, subprocess.Popen(argv, stdin=subprocess.DEVNULL) as hanging:
        try:
            assert waker.stdout.readline() == "it hangs\n"
            start = time.monotonic()
            told = sandbox.network("add-iface", _NIC)
            assert time.monotonic() - start < _BOUND_SECONDS, told
            assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "null\n", 1), told
            assert told.stderr.startswith("kata-runtime: "), told
            assert "did not happen within 10 s" in told.stderr, told
            assert (sandbox.directory / "record.json").read_text() == record
            waker.communicate("\n", timeout=_BOUND_SECONDS)
            # It ends with the program that wakes the agent.
            assert hanging.wait(timeout=_BOUND_SECONDS) == 0
        finally:
            waker.kill()
            hanging.kill()
    assert sandbox.network("add-iface", _NIC).stderr == ""
    listed = json.loads(sandbox.network("list-ifaces").stdout)
    assert [(row["name"], row["ip"]) for row in listed] == [("eth1", ["10.1.0.3/24"]), ("eth0", ["10.0.0.3/24"])]
    for document in (_NIC, _WAKING_NIC):
        assert sandbox.network("del-iface", document).stdout == "null\n"
