"""Removes a container, and with the last one its pod: all processes, mounts, cgroups, NICs and files."""

from __future__ import annotations

import os

from kata_runtime.errors import ConflictError, ContainerError, HostError, KataError
from kata_runtime.fast_contextlib import ExitStack, suppress
from kata_runtime.network.reconcile import release_all
from kata_runtime.oci import container as status_of
from kata_runtime.oci import guest_mounts
from kata_runtime.oci.container import Container, load_container
from kata_runtime.oci.guest_command import FreePort
from kata_runtime.oci.hooks import run_late_hooks
from kata_runtime.oci.operations import container_state, find_container
from kata_runtime.oci.shared_directory import unshare
from kata_runtime.sandbox import cgroup, lifecycle
from kata_runtime.sandbox.files import remove_tree
from kata_runtime.sandbox.identity import resolve, sandbox_ids, sandbox_of
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import is_alive, kill_process
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.session import held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.sandbox.lock import LockWait
    from kata_runtime.sandbox.record import Record


def delete(root: str, text: str, lock_wait: LockWait, *, force: bool) -> None:
    """Remove every trace of a container or sandbox. With ``force`` it may be running, or not exist.

    :raise ConflictError: it is running. :raise ContainerError: it does not exist.
    :raise HostError: something could not be removed.
    """
    try:
        container = _container_to_delete(root, text)
    except ContainerError:
        if force:
            return
        raise
    except HostError:
        # No process may be ended by an unreadable record; the removal of the sandbox finds processes without it.
        container = None
    if container is None:
        lifecycle.delete(root, text, lock_wait, force=force, release=_release(lock_wait))
        return
    status = container.current_status()
    if status in (status_of.RUNNING, status_of.PAUSED) and not force:
        raise ConflictError(
            f"container {container.container_id} is {status}",
            hint=f"'kata-runtime kill {container.container_id} KILL' ends it, 'delete --force' does both",
        )
    _delete_container(root, container, lock_wait)


def _container_to_delete(root: str, text: str) -> Container | None:
    """As ``find_container``; None also for a pod without containers, for example after a killed create."""
    try:
        return find_container(root, text)
    except ContainerError:
        full_id = resolve(root, text)
        if pod_members(root, full_id):
            raise
        return None


def _delete_container(root: str, container: Container, lock_wait: LockWait) -> None:
    # Before the lock is taken: the command that holds it may be waiting for this container.
    kill_process(container.shim, container.shim_start_time)
    directory = os.path.join(root, container.sandbox_id)
    with ExitStack() as stack:
        with suppress(ContainerError):  # the pod has been removed already
            stack.enter_context(held(root, container.sandbox_id, lock_wait))
        current = load_container(root, container.container_id) or container
        kill_process(current.shim, current.shim_start_time)
        if pod_members(root, container.sandbox_id) <= {container.container_id}:
            remove_pod(root, container.sandbox_id, lock_wait)
            stack.close()
            if not container.owns_pod:
                _remove_member(root, current)
        else:
            if _machine_runs(directory):
                # If the guest does not answer, the container ends with its VM.
                with suppress(KataError):
                    guest_mounts.forget_container(FreePort(directory, container.sandbox_id), container.container_id)
            unshare(directory, container.container_id)
            if container.owns_pod:
                os.unlink(SandboxPaths(directory).container)
                with suppress(FileNotFoundError):
                    os.unlink(SandboxPaths(directory).exit_status)
            else:
                _remove_member(root, current)
    run_late_hooks(current.poststop, container_state(current), "/", lock_wait.notify)


def pod_members(root: str, sandbox_id: str) -> set[str]:
    """The IDs of a pod's containers, including those that are being created."""
    return {
        full_id
        for full_id in sandbox_ids(root)
        if sandbox_of(root, full_id) == sandbox_id
        and (full_id != sandbox_id or os.path.exists(SandboxPaths(os.path.join(root, full_id)).container))
    }


def remove_pod(root: str, sandbox_id: str, lock_wait: LockWait) -> None:
    """End a pod's VM and remove its directory. The caller holds its lock.

    :raise HostError, DeadlineError: something could not be removed; the directory is kept, to try again.
    """
    directory = os.path.join(root, sandbox_id)
    if not os.path.exists(directory):
        return
    lifecycle.remove(root, sandbox_id, _release(lock_wait))


def _release(lock_wait: LockWait) -> Callable[[Record], None]:
    """A callback for ``remove``: it releases the NICs of an ended VM on this host, and reports leftovers."""

    def release(record: Record) -> None:
        if record.nics or record.pending:
            release_all(record, lock_wait.notify)

    return release


def _remove_member(root: str, container: Container) -> None:
    directory = os.path.join(root, container.container_id)
    cgroup.remove(container.cgroups)
    try:
        remove_tree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError.of(f"cannot remove {directory}", error) from error


def _machine_runs(directory: str) -> bool:
    try:
        record = load_record(directory)
    except FileNotFoundError:
        return False
    return is_alive(record.pid, record.start_time)
