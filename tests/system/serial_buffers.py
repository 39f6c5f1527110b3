"""How many buffers of a serial port's output QEMU has taken from the guest and not returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.system.conftest import Sandbox

# The numbers of the ports, as QEMU's command line gives them.
CONTROL_PORT = 1
FIRST_EXEC_PORT = 2


class OutputQueue(NamedTuple):
    """How many buffers QEMU has taken from the guest, and returned to it, modulo 2^16."""

    taken: int
    returned: int

    @property
    def kept(self) -> int:
        """Those that the guest waits for; of a port without a client, those that it will never get back."""
        return (self.taken - self.returned) % (1 << 16)


def output_queue(sandbox: Sandbox, port: int) -> OutputQueue:
    """That of ``port``, which has 128 buffers."""
    # Queues 0 to 3 are those of port 0 and of control messages, each port has one in either direction
    # (Virtio 1.2, 5.3.2).
    where = {"path": "/machine/peripheral/serial/virtio-backend", "queue": 2 * port + 3}
    with sandbox.session() as session:
        queue = session.monitor().execute("x-query-virtio-queue-status", where)
    assert isinstance(queue, dict)
    return OutputQueue(int(queue["last-avail-idx"]), int(queue["used-idx"]))
