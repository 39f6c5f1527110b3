"""Commands whose answer cannot be written: a NIC is removed again, the rest says that it was carried out."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
_FULL = "cannot write the result to standard output: No space left on device"


@pytest.fixture(params=["full", "closed"])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    """A standard output that takes nothing, and the reason."""
    if request.param == "full":
        descriptor, reason = os.open("/dev/full", os.O_WRONLY), _FULL
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
        reason = "nobody reads the result"
    yield descriptor, reason
    os.close(descriptor)


def _lost(sandbox: Sandbox, output: int, verb: str, document: object) -> tuple[int, str]:
    argv = sandbox.runtime.argv("kata-network", verb, sandbox.id, *(["-"] if verb != "list-routes" else []))
    data = json.dumps(document).encode()
    done = subprocess.run(argv, input=data, stdout=output, stderr=subprocess.PIPE, check=False, timeout=120)
    return done.returncode, done.stderr.decode()


def test_nic_is_taken_out(sandbox: Sandbox, namespace: Namespace, refusing: tuple[int, str]) -> None:
    """A NIC whose PCI address cannot be printed is removed: all is as before, and it can be added."""
    output, reason = refusing
    namespace.tap("tap0", "10.0.0.1/24")
    before = sandbox.snapshot()
    assert _lost(sandbox, output, "add-iface", _NIC) == (
        1,
        f"kata-runtime: {reason}; NIC 'eth0' was removed again\n",
    )
    assert sandbox.snapshot() == before
    assert sandbox.network("add-iface", _NIC).returncode == 0
    assert sandbox.network("del-iface", _NIC).stdout == "null\n"


def test_the_rest_is_carried_out(sandbox: Sandbox, namespace: Namespace, refusing: tuple[int, str]) -> None:
    """Routes and deletions stay done, and the line says so; a listing only fails."""
    output, reason = refusing
    namespace.tap("tap0", "10.0.0.1/24")
    assert sandbox.network("add-iface", _NIC).returncode == 0
    done = (1, f"kata-runtime: {reason}; the change was made nevertheless\n")
    route = {"dest": "10.9.0.0/16", "gateway": "10.0.0.1", "device": "eth0"}
    assert _lost(sandbox, output, "add-route", route) == done
    assert "10.9.0.0/16 via 10.0.0.1 dev eth0" in sandbox.guest("ip", "route").stdout
    assert _lost(sandbox, output, "list-routes", None) == (1, f"kata-runtime: {_FULL}\n" if reason == _FULL else "")
    assert _lost(sandbox, output, "update-routes", None) == done
    assert "10.9.0.0/16" not in sandbox.guest("ip", "route").stdout
    assert _lost(sandbox, output, "del-iface", _NIC) == done
    assert sandbox.network("list-ifaces").stdout == "null\n"
