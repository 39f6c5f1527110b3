"""Runs short commands in a sandbox's guest, on any free exec port, without waiting for locks."""

from __future__ import annotations

from kata_runtime.guest.answer_limits import DEFAULT
from kata_runtime.guest.short_command import Completed, run_command
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.guest_command import free_port
from kata_runtime.sandbox.paths import SandboxPaths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class FreePort(NamedTuple):
    """Runs commands in the guest of the sandbox in ``directory``; ``process`` is as in ``run_command``."""

    directory: str
    sandbox_id: str
    process: int | None = None

    def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, seconds: float = 30.0, fixed_addresses: bool = False
    ) -> Completed:
        """Run a short command; ``fixed_addresses`` is as in ``run_command``.

        :raise GuestError: it cannot be started. :raise DeadlineError: it ran longer than ``seconds``.
        :raise ContainerError, LimitError: no port is free.
        """
        with free_port(self.directory, self.sandbox_id) as number:
            path = SandboxPaths(self.directory).exec_socket(number)
            return run_command(
                path, argv, stdin, seconds=seconds, limits=DEFAULT,
                fixed_addresses=fixed_addresses, process=self.process,
            )  # fmt: skip
