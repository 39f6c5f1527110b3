"""A guest whose clock jumps."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import nic

if TYPE_CHECKING:
    from tests.system.conftest import Namespace, Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24")
_YEARS = 10 * 365 * 24 * 3600


@pytest.mark.parametrize("jump", [-_YEARS, _YEARS])
def test_clock_that_jumps(sandbox: Sandbox, namespace: Namespace, jump: int) -> None:
    """No deadline depends on the time of day: NICs and programs work in a guest whose clock is ten years off."""
    namespace.tap("tap0", "10.0.0.1/24")
    assert sandbox.guest("date", "-s", f"@{int(time.time()) + jump}").returncode == 0
    try:
        assert sandbox.network("add-iface", _NIC).stderr == ""
        (listed,) = json.loads(sandbox.network("list-ifaces").stdout)
        assert listed == {"name": "eth0", "mac": "02:42:20:6e:03:01", "ip": ["10.0.0.3/24"], "mtu": 1500}
        assert sandbox.network("del-iface", _NIC).stdout == "null\n"
        assert sandbox.guest("true").returncode == 0
    finally:
        assert sandbox.guest("date", "-s", f"@{int(time.time())}").returncode == 0
