"""The interfaces between an exec port and the process that it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kata_runtime.guest.agent.process_streams import Streams


class Job(Protocol):
    """A command, a container, or a command in a container."""

    @property
    def streams(self) -> Streams | None:
        """Its standard streams; None until it has started."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal, where it has one."""

    def finish(self, status: int) -> None:
        """Pass its last output and its status to the host, and close everything."""

    def hang_up(self) -> None:
        """The host has disconnected: end the job."""


class Owner(Protocol):
    """What a job reports to: its exec port."""

    def started(self, job: Job) -> None:
        """The job has started and has streams."""

    def failed(self, job: Job, number: int, text: str) -> None:
        """The job could not be started, with the errno ``number`` and a reason."""

    def ended(self, job: Job, status: int) -> None:
        """The job's process has ended."""
