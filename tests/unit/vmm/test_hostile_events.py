"""Events that QEMU never sends, but one that its guest took over can."""

from __future__ import annotations

import socket

import pytest

from kata_runtime.errors import QemuError
from kata_runtime.vmm.monitor import Monitor


@pytest.mark.parametrize("name", [b"[]", b"{}", b"null", b"1"])
def test_name_of_another_type(name: bytes) -> None:
    """An event with a list, an object or a number for its name is nobody's, and the next answer is taken."""
    ours, theirs = socket.socketpair()
    with theirs, Monitor(ours) as monitor, monitor.listen("DEVICE_DELETED") as events:
        theirs.sendall(
            b'{"event":%b}\n{"return":7,"id":1}\n{"event":"DEVICE_DELETED","data":{"device":"nic0"}}\n' % name
        )
        theirs.shutdown(socket.SHUT_WR)
        assert monitor.execute("query-status", deadline=1) == 7
        assert events.wait(lambda _data: True, 1, awaited="an event") == {"device": "nic0"}
        with pytest.raises(QemuError) as caught:
            events.wait(lambda _data: True, 1, awaited="an event")
        assert str(caught.value) == "QEMU ended or closed its monitor"
