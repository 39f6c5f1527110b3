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
_HUNG_SECONDS = 18
# Nobody outside can wake an agent that hangs.
_HANG = f"""
pid=$(pgrep -f '[k]ata_runtime.guest' | head -n 1)
setsid sh -c 'echo hanging; exec >/dev/null 2>&1; kill -STOP '$pid'; sleep {_HUNG_SECONDS}; kill -CONT '$pid </dev/null
"""


def test_hung_agent(sandbox: Sandbox, namespace: Namespace) -> None:
    """A command ends by its deadline with one line and no change; when the agent goes on, commands work."""
    namespace.tap("tap0", "10.0.0.1/24")
    record = (sandbox.directory / "record.json").read_text()
    argv = sandbox.runtime.argv("exec", sandbox.id, "sh", "-c", _HANG)
    start = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as hanging:
        assert hanging.stdout is not None
        try:
            assert hanging.stdout.readline() == "hanging\n"
            told = sandbox.network("add-iface", _NIC)
            ended = time.monotonic()
            assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "null\n", 1), told
            assert told.stderr.startswith("kata-runtime: "), told
            assert "did not happen within 10 s" in told.stderr, told
            assert ended - start < _HUNG_SECONDS
            assert (sandbox.directory / "record.json").read_text() == record
            # It ends with the program that wakes the agent.
            assert hanging.wait(timeout=2 * _HUNG_SECONDS) == 0
        finally:
            hanging.kill()
    assert sandbox.network("add-iface", _NIC).stderr == ""
    (listed,) = json.loads(sandbox.network("list-ifaces").stdout)
    assert (listed["name"], listed["ip"]) == ("eth0", ["10.0.0.3/24"])
    assert sandbox.network("del-iface", _NIC).stdout == "null\n"
