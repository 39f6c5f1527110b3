"""Operations of engines on existing containers: start, kill, pause, resume, update, ps, state, events."""

from __future__ import annotations

import os

from kata_runtime import fast_signal as signal
from kata_runtime.errors import ContainerError, DeadlineError, GuestError, HostError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.guest.crun import Crun, Process, Usage
from kata_runtime.oci import container as status_of
from kata_runtime.oci.bundle import CONFIG, read_bundle
from kata_runtime.oci.changed_files import await_changed_files
from kata_runtime.oci.container import Container, load_container, save_container
from kata_runtime.oci.guest_command import FreePort
from kata_runtime.oci.guest_config import guest_cgroup
from kata_runtime.oci.hooks import run_late_hooks
from kata_runtime.oci.resource_update import changed_resources, check_resources
from kata_runtime.sandbox.identity import resolve, sandbox_of
from kata_runtime.sandbox.lifecycle import OCI_VERSION, list_sandboxes
from kata_runtime.sandbox.lifecycle import state as sandbox_state
from kata_runtime.sandbox.process import is_alive, process_descriptor
from kata_runtime.sandbox.record import load_record
from kata_runtime.sandbox.session import locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kata_runtime.oci.json_object import JsonObject


def find_container(root: str, text: str) -> Container | None:
    """Find an engine's container by ID or unambiguous prefix; None if it is a sandbox that ``run`` created.

    :raise ContainerError: there is neither, or the prefix is ambiguous.
    """
    full_id = resolve(root, text)
    found = load_container(root, full_id)
    if found is None and is_pod_of_engine(root, full_id):
        raise ContainerError(f"container {full_id} does not exist", container=full_id)
    return found


def is_pod_of_engine(root: str, full_id: str) -> bool:
    """Whether a directory is that of a pod whose first container was deleted before the others."""
    try:
        return load_record(os.path.join(root, full_id)).pod
    except (FileNotFoundError, HostError):
        # The caller will fail on the unreadable record itself, except for KILL, which does not need it.
        return False


def container_state(container: Container) -> dict[str, object]:
    """The state of a container (OCI runtime specification, "State")."""
    status = container.current_status()
    return {
        "ociVersion": OCI_VERSION,
        "id": container.container_id,
        "status": status,
        "pid": 0 if status == status_of.STOPPED else container.shim,
        "bundle": container.bundle,
        "created": container.created,
        "annotations": container.annotations,
    }


def state(root: str, text: str) -> dict[str, object]:
    """The state of a container or sandbox. :raise ContainerError: there is none."""
    found = find_container(root, text)
    return sandbox_state(root, text) if found is None else container_state(found)


def list_states(root: str, warn: Callable[[str], None]) -> list[dict[str, object]]:
    """The states of all containers and sandboxes, by ID; ``warn`` is called for unreadable records.

    :raise HostError: the directory cannot be read.
    """
    return list_sandboxes(root, warn, state)


def start(root: str, container: Container, warn: Callable[[str], None]) -> None:
    """Start the program of a created container; ``warn`` is called for ``poststart`` hooks that fail.

    :raise ContainerError: its status is not created. :raise GuestError: crun refused, with crun's message.
    """
    await_changed_files(root, container)
    with _held(root, container) as current:
        if current.current_status() != status_of.CREATED:
            raise ContainerError(
                f"container {current.container_id} is {current.current_status()}, only a created one can be started",
                container=current.container_id,
            )
        _start_program(root, current)
        started = current._replace(status=status_of.RUNNING)
        save_container(root, started)
    hooks = read_bundle(started.bundle).hooks.get("poststart", ()) if _has_bundle(started) else ()
    run_late_hooks(hooks, container_state(started), started.bundle, warn)


def _start_program(root: str, container: Container) -> None:
    """Let the container's process run its program.

    When that is killed between crun's look at it and crun's opening of its FIFO, crun waits for ever (fifo(7)).
    """
    directory = os.path.join(root, container.sandbox_id)
    try:
        with process_descriptor(container.shim, container.shim_start_time) as shim:
            Crun(FreePort(directory, container.sandbox_id, shim)).start(container.container_id)
    except (HostError, DeadlineError) as error:
        if is_alive(container.shim, container.shim_start_time):
            raise
        raise ContainerError(
            f"container {container.container_id} ended before its program was started",
            container=container.container_id,
        ) from error


def kill(root: str, container: Container, number: int, *, everything: bool) -> None:
    """Send a signal to the container's first process, or with ``everything`` to all of its processes.

    It takes no lock: the command that holds it may be waiting for this container.

    :raise ContainerError: it does not run.
    """
    status = container.current_status()
    if status in (status_of.STOPPED, status_of.CREATING):
        # containerd looks for this text, and then treats the container as ended.
        raise ContainerError(f"container not running: {container.container_id} is {status}", container="")
    try:
        _crun(root, container).kill(container.container_id, number, everyone=everything)
    except GuestError:
        if number == signal.SIGKILL and not _machine_runs(root, container):
            return  # the VM ends meanwhile
        raise


def pause(root: str, container: Container) -> None:
    """Freeze all processes of a running container. :raise ContainerError: it does not run."""
    with _held(root, container) as current:
        _require(current, status_of.RUNNING)
        _crun(root, current).pause(current.container_id)
        save_container(root, current._replace(status=status_of.PAUSED))


def resume(root: str, container: Container) -> None:
    """Thaw the processes of a paused container. :raise ContainerError: it is not paused."""
    with _held(root, container) as current:
        _require(current, status_of.PAUSED)
        _crun(root, current).resume(current.container_id)
        save_container(root, current._replace(status=status_of.RUNNING))


def update(root: str, container: Container, resources: JsonObject) -> None:
    """Change the limits of a container (the specification's ``linux.resources``).

    :raise ContainerError: it does not run. :raise GuestError: crun refused, with crun's message.
    :raise InputError: a limit has a wrong type.
    """
    check_resources(resources)
    require_alive(container)
    _crun(root, container).update(container.container_id, changed_resources(resources.fields))


def guest_processes(root: str, container: Container) -> list[Process]:
    """A container's processes in the guest. :raise ContainerError: it does not run."""
    require_alive(container)
    return _crun(root, container).process_table(container.container_id)


def usage(root: str, container: Container) -> Usage:
    """A container's resource usage, as counted by its guest. :raise ContainerError: it does not run."""
    require_alive(container)
    return _crun(root, container).usage(guest_cgroup(container.container_id))


def last_usage(root: str, container: Container) -> Usage:
    """The resource usage of a container that has ended and is not deleted yet.

    :raise KataError: its guest has ended, or does not report it.
    """
    return _crun(root, container).usage(guest_cgroup(container.container_id))


@contextmanager
def _held(root: str, container: Container) -> Iterator[Container]:
    """Hold the lock of a container's pod, and read the container's current record."""
    with locked(root, container.sandbox_id):
        current = load_container(root, container.container_id)
        if current is None:
            raise ContainerError(
                f"container {container.container_id} was deleted meanwhile", container=container.container_id
            )
        yield current


def require_alive(container: Container) -> None:
    """Refuse a container that does not run. :raise ContainerError: it does not."""
    _require(container, status_of.CREATED, status_of.RUNNING, status_of.PAUSED)


def _require(container: Container, *wanted: str) -> None:
    status = container.current_status()
    if status not in wanted:
        raise ContainerError(
            f"container {container.container_id} is {status}, not {' or '.join(wanted)}",
            container=container.container_id,
        )


def _crun(root: str, container: Container) -> Crun:
    return Crun(FreePort(os.path.join(root, container.sandbox_id), container.sandbox_id))


def _machine_runs(root: str, container: Container) -> bool:
    try:
        record = load_record(os.path.join(root, sandbox_of(root, container.container_id)))
    except FileNotFoundError:
        return False
    return is_alive(record.pid, record.start_time)


def _has_bundle(container: Container) -> bool:
    return os.path.exists(os.path.join(container.bundle, CONFIG))
