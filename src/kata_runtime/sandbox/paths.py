"""What lies where in the directory of a sandbox (mode 0700, owner root)."""

from __future__ import annotations

RECORD = "record.json"
LOCK = "lock"
MONITOR = "monitor.sock"
CONTROL = "control.sock"
QEMU_LOG = "qemu.log"
CONSOLE_LOG = "console.log"

# Of a sandbox that holds containers of engines: their mounts, the same as the guest is served it, and who serves.
MOUNTS = "mounts"
SHARED = "shared"
VIRTIOFSD = "virtiofsd.sock"
VIRTIOFSD_LOG = "virtiofsd.log"
NETWORK_LOG = "network.log"
# Of each container of an engine; that of a pod's other container is nothing but a directory with these.
CONTAINER = "container.json"
SANDBOX_LINK = "sandbox"

# The last one is kept for short commands of the runtime itself, so that long ones of users never block it.
# At boot each port takes one of the 32 buffers for control messages, and one that connects another; QEMU drops what
# finds none (7.2, hw/char/virtio-serial-bus.c: send_control_msg): with 31 the agent waited for a port's name for ever.
EXEC_PORTS = 24
RUNTIME_EXEC_PORT = EXEC_PORTS - 1


def undo_file(kind: str) -> str:
    """What pending work of a kind is undone to."""
    return f"{kind}-undo.json"


def exec_socket(number: int) -> str:
    """The socket of exec port ``number``."""
    return f"exec-{number}.sock"


def exec_lock(number: int) -> str:
    """Whoever holds it uses exec port ``number``."""
    return f"exec-{number}.lock"
