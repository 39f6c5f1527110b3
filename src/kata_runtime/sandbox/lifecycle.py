"""run, list, state, exec, kill and delete, with the meaning that the OCI runtime command line gives them."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kata_runtime.errors import ConflictError, ContainerError, HostError, InputError, KataError
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.sandbox import paths
from kata_runtime.sandbox.boot import (
    BOOT_SECONDS,
    PROOF_SECONDS,
    BootError,
    Started,
    boot,
    check_image,
    find_qemu,
    kernel_parameters,
)
from kata_runtime.sandbox.execution import execute as execute_on_port
from kata_runtime.sandbox.identity import check_id, new_id, resolve, sandbox_ids
from kata_runtime.sandbox.lock import LockFile, Patience
from kata_runtime.sandbox.process import await_end, is_alive, kill_process
from kata_runtime.sandbox.record import Record, load_record, save_record
from kata_runtime.sandbox.session import held, locked, require_running
from kata_runtime.vmm.accelerator import Accelerator, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kata_runtime.sandbox.config import Config

OCI_VERSION = "1.0.2"  # of the runtime specification whose state document this is
_SHUTDOWN_SECONDS = 15.0
_GRACEFUL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run(config: Config, wanted: str | None, root: Path, progress: Callable[[str], None]) -> str:
    """Boot a sandbox and give its ID once its agent answers; after a failure nothing of it is left.

    ``progress`` hears what is worth knowing, and of a guest that did not boot the last it printed.

    :raise InputError: an impossible ID. :raise ConflictError: it exists already.
    :raise HostError, BootError: the host or the guest failed.
    """
    container_id = new_id() if wanted is None else check_id(wanted)
    identity = check_image(config)
    config = config._replace(path=find_qemu(config.path))
    directory = os.path.join(root, container_id)
    _make_directory(root, directory)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        lock = LockFile(os.path.join(directory, paths.LOCK))
        undo.callback(lock.close)
        if not lock.acquire(Patience(), f"container {container_id}"):
            raise ContainerError(f"container {container_id} was deleted meanwhile", container=container_id)
        record = Record(
            container_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            qemu=config.path,
            vcpus=config.default_vcpus,
            root_ports=config.default_root_ports,
            kernel_parameters=kernel_parameters(config),
            shared_memory=config.shared_memory,
            ipvs_rule_limit=config.ipvs_rule_limit,
        )
        try:
            _boot_somehow(config, directory, record, identity, progress)
        except BootError as error:
            for line in error.console:
                progress(f"guest: {line}")
            raise
        undo.pop_all()
        lock.close()
    return container_id


def _boot_somehow(
    config: Config, directory: str, record: Record, identity: str, progress: Callable[[str], None]
) -> None:
    """Boot with the accelerator asked for; a boot that proves KVM is the boot."""

    def attempt(accelerator: str, seconds: float) -> Started:
        attempted = record._replace(accelerator=accelerator)

        def started(pid: int, start_time: int) -> None:
            save_record(directory, attempted._replace(pid=pid, start_time=start_time))

        return boot(config, directory, record.container_id, accelerator=accelerator, seconds=seconds, started=started)

    proven: list[Started] = []

    def prove() -> bool:
        try:
            proven.append(attempt(Accelerator.KVM, PROOF_SECONDS))
        except BootError as error:
            progress(f"KVM does not work on this host, sandboxes run slower without it: {error.message}")
            return False
        return True

    accelerator = choose(config.accelerator, qemu=config.path, image=identity, prove=prove)
    if not proven:
        attempt(accelerator, BOOT_SECONDS)


def _make_directory(root: Path, directory: str) -> None:
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError as error:
        if not os.path.isdir(root):
            raise HostError(f"{root} is no directory", hint="give another --root") from error
        name = os.path.basename(directory)
        raise ConflictError(f"container {name} exists already", hint="choose another ID or delete it") from error
    except OSError as error:
        raise HostError(f"cannot make {directory}: {error.strerror}", errno=error.errno or 0) from error


def list_sandboxes(root: Path) -> list[dict[str, object]]:
    """The states of all sandboxes, by ID.

    :raise HostError: the directory cannot be read.
    """
    states = []
    for container_id in sandbox_ids(str(root)):
        try:
            states.append(_state(str(root), container_id))
        except ContainerError:
            continue  # deleted meanwhile
    return states


def state(root: Path, text: str) -> dict[str, object]:
    """The state of one sandbox (OCI runtime specification, "State").

    :raise ContainerError: there is none of that ID, or several. :raise HostError: its record is damaged.
    """
    return _state(str(root), resolve(str(root), text))


def _state(root: str, container_id: str) -> dict[str, object]:
    directory = os.path.join(root, container_id)
    try:
        record = load_record(directory)
    except FileNotFoundError:
        record = Record(container_id)
    running = is_alive(record.pid, record.start_time)
    status = "running" if running else "stopped"
    if not os.path.exists(os.path.join(directory, paths.CONSOLE_LOG)) and _is_held(directory, container_id):
        status = "creating"
    return {
        "ociVersion": OCI_VERSION,
        "id": container_id,
        "status": status,
        "pid": record.pid if running else 0,
        "bundle": directory,
    }


def _is_held(directory: str, container_id: str) -> bool:
    try:
        lock = LockFile(os.path.join(directory, paths.LOCK))
    except FileNotFoundError:
        raise ContainerError(f"container {container_id} was deleted meanwhile", container=container_id) from None
    try:
        return not lock.try_acquire()
    finally:
        lock.close()


def execute(root: Path, text: str, argv: Sequence[str]) -> int:
    """Run a command in the container with this process's streams; its exit status.

    It takes no lock of the sandbox: however long it runs, others are served.

    :raise ContainerError: no such running container. :raise GuestError: it cannot be started.
    """
    container_id = resolve(str(root), text)
    directory = os.path.join(root, container_id)
    require_running(_loaded(directory, container_id))
    return execute_on_port(directory, container_id, argv)


def kill(root: Path, text: str, number: int, patience: Patience) -> None:
    """End the container: by its own shutdown for TERM, INT, HUP and QUIT, at once for KILL.

    :raise InputError: another signal, which a VM cannot take.
    :raise DeadlineError: it does not end, or others held it too long.
    :raise ContainerError: no such running container.
    """
    if number not in (*_GRACEFUL, signal.SIGKILL):
        name = signal.Signals(number).name
        raise InputError(
            f"a container cannot take {name}", field="signal", hint="TERM shuts it down, KILL ends it at once"
        )
    container_id = resolve(str(root), text)
    directory = os.path.join(root, container_id)
    record = _loaded(directory, container_id)
    require_running(record)
    if number == signal.SIGKILL:
        # Without the lock: whoever holds it may be waiting for this very VM.
        kill_process(record.pid, record.start_time)
        return
    with locked(str(root), container_id, patience) as record:
        require_running(record)
        channel = AgentChannel(os.path.join(directory, paths.CONTROL), "")
        try:
            channel.shutdown()
            await_end(record.pid, record.start_time, _SHUTDOWN_SECONDS)
        except KataError as error:
            error.hint = f"'kata-runtime kill {container_id} KILL' ends it at once"
            raise
        finally:
            channel.close()


def delete(root: Path, text: str, patience: Patience, *, force: bool, release: Callable[[Record], None]) -> None:
    """Remove every trace of a stopped container; with ``force`` of a running one, too.

    ``release`` takes away what the host holds for it outside its directory, once its VM has ended.

    :raise ConflictError: it runs. :raise ContainerError: there is none.
    :raise HostError: a file cannot be removed.
    """
    container_id = resolve(str(root), text)
    directory = os.path.join(root, container_id)
    if force:
        # Before the lock is taken: a command that holds it fails at once instead of at its deadline.
        _kill_recorded(directory)
    with held(str(root), container_id, patience):
        if force:
            _kill_recorded(directory)
        else:
            record = _loaded(directory, container_id)
            if is_alive(record.pid, record.start_time):
                raise ConflictError(
                    f"container {container_id} is running",
                    hint=f"'kata-runtime kill {container_id}' stops it, 'delete --force' does both",
                )
        with suppress(FileNotFoundError):
            release(_believable(directory))
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise HostError(f"cannot remove {directory}: {error.strerror}", errno=error.errno or 0) from error


def _kill_recorded(directory: str) -> None:
    try:
        record = load_record(directory)
    except (FileNotFoundError, HostError):
        # Without a readable record there is no process that may be ended.
        return
    kill_process(record.pid, record.start_time)


def _believable(directory: str) -> Record:
    """The record, or an empty one in place of a damaged one: nothing in it can be acted upon."""
    try:
        return load_record(directory)
    except HostError:
        return Record(os.path.basename(directory))


def _loaded(directory: str, container_id: str) -> Record:
    try:
        return load_record(directory)
    except FileNotFoundError:
        return Record(container_id)
