"""The paths of a sandbox's files and sockets. No other module builds them.

So a sandbox that another program started could be adopted by returning the names of its sockets here.
"""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple

# The last one is reserved for short commands of the runtime itself, which long ones of users thus never block.
# At boot each port takes one of the 32 buffers for control messages, and one that connects another; QEMU drops what
# finds none (7.2, hw/char/virtio-serial-bus.c: send_control_msg): with 31 the agent waited for a port's name for ever.
EXEC_PORTS = 24
RUNTIME_EXEC_PORT = EXEC_PORTS - 1
LOCK_NAME = "lock"


class SandboxPaths(NamedTuple):
    """The paths of one sandbox; ``directory`` has mode 0700 and belongs to root.

    A container that joined another's pod has its own directory, with only ``container`` and ``sandbox_link``.
    """

    directory: str

    @property
    def record(self) -> str:
        """The sandbox's record (``record.Record``)."""
        return f"{self.directory}/record.json"

    @property
    def lock(self) -> str:
        """The lock of the command that works on the sandbox."""
        return f"{self.directory}/{LOCK_NAME}"

    @property
    def operations(self) -> str:
        """Durations and failures of commands (``operation_counters``)."""
        return f"{self.directory}/operations"

    @property
    def monitor(self) -> str:
        """The socket of QEMU's monitor."""
        return f"{self.directory}/monitor.sock"

    @property
    def control(self) -> str:
        """The socket of the agent's control port."""
        return f"{self.directory}/control.sock"

    @property
    def console_log(self) -> str:
        """The last output of the guest's console."""
        return f"{self.directory}/console.log"

    @property
    def qemu_log(self) -> str:
        """The last output of QEMU itself."""
        return f"{self.directory}/qemu.log"

    @property
    def mounts(self) -> str:
        """The mounts of an engine's containers, as the host makes them."""
        return f"{self.directory}/mounts"

    @property
    def shared(self) -> str:
        """``mounts`` as virtiofsd serves it to the guest."""
        return f"{self.directory}/shared"

    @property
    def virtiofsd(self) -> str:
        """The socket of virtiofsd."""
        return f"{self.directory}/virtiofsd.sock"

    @property
    def network_log(self) -> str:
        """Errors of mirroring the network namespace."""
        return f"{self.directory}/network.log"

    @property
    def container(self) -> str:
        """The record of an engine's container."""
        return f"{self.directory}/container.json"

    @property
    def exit_status(self) -> str:
        """The exit status of an engine's container that has ended, in decimal digits."""
        return f"{self.directory}/exit-status"

    @property
    def sandbox_link(self) -> str:
        """A symbolic link to the directory of the pod that the container joined."""
        return f"{self.directory}/sandbox"

    def undo_file(self, kind: str) -> str:
        """The snapshot to which pending work of a kind is undone."""
        return f"{self.directory}/{kind}-undo.json"

    def exec_socket(self, number: int) -> str:
        """The socket of exec port ``number``."""
        return f"{self.directory}/exec-{number}.sock"

    def exec_lock(self, number: int) -> str:
        """The lock of the process that uses exec port ``number``."""
        return f"{self.directory}/exec-{number}.lock"
