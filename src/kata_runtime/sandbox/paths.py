"""What lies where in the directory of a sandbox (mode 0700, owner root)."""

from __future__ import annotations

RECORD = "record.json"
LOCK = "lock"
MONITOR = "monitor.sock"
CONTROL = "control.sock"
QEMU_LOG = "qemu.log"
CONSOLE_LOG = "console.log"

# The last one is kept for short commands of the runtime itself, so that long ones of users never block it.
EXEC_PORTS = 16
RUNTIME_EXEC_PORT = EXEC_PORTS - 1


def exec_socket(number: int) -> str:
    """The socket of exec port ``number``."""
    return f"exec-{number}.sock"


def exec_lock(number: int) -> str:
    """Whoever holds it uses exec port ``number``."""
    return f"exec-{number}.lock"
