"""Sessions: a running sandbox that a command has locked and recovered, with connections to its QEMU and agent."""

from __future__ import annotations

import os

from kata_runtime.errors import ContainerError, HostError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.guest.answer_limits import DEFAULT
from kata_runtime.sandbox.identity import resolve, sandbox_of
from kata_runtime.sandbox.lock import LockFile, LockWait, stops_deferred
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths
from kata_runtime.sandbox.process import held_signals, is_alive
from kata_runtime.sandbox.record import Record, load_record, save_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.sandbox.record import Work
    from kata_runtime.vmm.monitor import Monitor

_PATIENCE = LockWait()


class Session:
    """A sandbox whose lock this command holds."""

    def __init__(self, root: str, record: Record, lock_wait: LockWait = _PATIENCE, *, dry_run: bool = False) -> None:
        self.root = root
        self.dry_run = dry_run
        self.record = record
        self.lock_wait = lock_wait
        # Work of interrupted commands that was recovered when this session was opened.
        self.recovered: list[Work] = []
        # Set it before the first use of the channel.
        self.limits = DEFAULT
        self._path = os.path.join(root, record.container_id)
        self._channel: AgentChannel | None = None
        self._monitor: Monitor | None = None

    @property
    def container_id(self) -> str:
        """The full ID."""
        return self.record.container_id

    @property
    def directory(self) -> str:
        """The sandbox's directory; mode 0700."""
        return self._path

    def channel(self) -> AgentChannel:
        """The connection to the guest's agent, opened on first use.

        :raise ContainerError, DeadlineError, GuestError: it cannot be opened.
        """
        if self._channel is None:
            from kata_runtime.guest.channel import AgentChannel

            self._channel = AgentChannel(
                SandboxPaths(self._path).control,
                SandboxPaths(self._path).exec_socket(RUNTIME_EXEC_PORT),
                self.limits,
            )
        return self._channel

    def monitor(self) -> Monitor:
        """The connection to QEMU's monitor, opened on first use.

        :raise QemuError, DeadlineError: it cannot be opened.
        """
        if self._monitor is None:
            from kata_runtime.vmm.monitor import Monitor

            self._monitor = Monitor.connect(SandboxPaths(self._path).monitor)
        return self._monitor

    def save(self, record: Record) -> None:
        """Replace the record on disk and then in memory; signals are blocked meanwhile.

        :raise HostError: it cannot be written.
        """
        if self.dry_run:
            raise HostError("a dry run was about to change the record", hint="please report this")
        with held_signals():
            save_record(self._path, record)
            self.record = record

    def close(self) -> None:
        """Close the connections."""
        if self._channel is not None:
            self._channel.close()
        if self._monitor is not None:
            self._monitor.close()


@contextmanager
def open_session(
    root: Path | str,
    container_id: str,
    recover: Callable[[Session], None],
    lock_wait: LockWait = _PATIENCE,
    *,
    dry_run: bool = False,
) -> Iterator[Session]:
    """Lock the running sandbox that ``container_id`` means; ``recover`` is called first, for pending work.

    Anything that can block, such as output to a slow reader, belongs after the end of the block.

    :raise ContainerError: there is no such sandbox, or several, or it is not running.
    :raise DeadlineError: another command held its lock too long.
    """
    root = str(root)
    full_id = sandbox_of(root, resolve(root, container_id))
    with locked(root, full_id, lock_wait) as record:
        require_running(record)
        session = Session(root, record, lock_wait, dry_run=dry_run)
        try:
            if record.pending:
                recover(session)
            yield session
        finally:
            session.close()


@contextmanager
def locked(root: str, full_id: str, lock_wait: LockWait = _PATIENCE) -> Iterator[Record]:
    """Hold the lock of a sandbox, and read its record.

    :raise ContainerError: it was deleted meanwhile, or is being created.
    :raise DeadlineError: another command held its lock too long.
    """
    directory = os.path.join(root, full_id)
    with held(root, full_id, lock_wait):
        try:
            record = load_record(directory)
        except FileNotFoundError:
            # The command that was creating it ended before it wrote a record.
            record = Record(full_id, ready=False)
        yield record


@contextmanager
def held(root: str, full_id: str, lock_wait: LockWait = _PATIENCE) -> Iterator[None]:
    """Hold the lock of a sandbox without reading its record, which may be damaged.

    :raise ContainerError: it was deleted meanwhile.
    :raise DeadlineError: another command held its lock too long.
    """
    try:
        lock = LockFile(SandboxPaths(os.path.join(root, full_id)).lock)
    except FileNotFoundError:
        raise _deleted(full_id) from None
    with stops_deferred():
        try:
            if not lock.acquire(lock_wait, f"container {full_id}"):
                raise _deleted(full_id)
            yield
        finally:
            lock.close()


def require_running(record: Record) -> None:
    """Refuse a sandbox whose VM has ended, or whose guest is not up.

    :raise ContainerError: its VM has ended or its guest is not up.
    """
    if not is_alive(record.pid, record.start_time):
        raise ContainerError(
            f"container {record.container_id} is stopped: its VM has ended",
            container=record.container_id,
            hint=f"'kata-runtime delete {record.container_id}' removes what is left of it",
        )
    if not record.ready:
        raise ContainerError(
            f"container {record.container_id} is being created",
            container=record.container_id,
            hint="wait for its 'run', or 'delete --force' it when that was killed",
        )


def _deleted(full_id: str) -> ContainerError:
    return ContainerError(f"container {full_id} was deleted meanwhile", container=full_id)
