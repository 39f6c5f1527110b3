"""run, list, state, exec, kill and delete, with the meaning that the OCI runtime command line gives them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from kata_runtime.errors import ConflictError, ContainerError, HostError, InputError, KataError
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.sandbox import cgroup, operation_counters
from kata_runtime.sandbox.boot import (
    BOOT_SECONDS,
    PROOF_SECONDS,
    boot,
    kernel_parameters,
    kvm_question,
    machine_arguments,
)
from kata_runtime.sandbox.boot_failure import BootError
from kata_runtime.sandbox.guest_command import execute as execute_on_port
from kata_runtime.sandbox.identity import check_id, check_root, new_id, resolve, sandbox_ids, user_of
from kata_runtime.sandbox.lock import LockFile, LockWait
from kata_runtime.sandbox.mounts import remove_mounts
from kata_runtime.sandbox.operation_counters import BOOT, count
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import await_end, held_signals, is_alive, kill_process
from kata_runtime.sandbox.record import Record, boot_id, load_record, save_record
from kata_runtime.sandbox.remains import end_processes, sandbox_processes
from kata_runtime.sandbox.session import held, locked, require_running
from kata_runtime.sandbox.template_boot import boot_with_template, template_key
from kata_runtime.vmm.accelerator import Accelerator, choose, is_kvm_failure, is_shortage, remember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kata_runtime.sandbox.config import Config
    from kata_runtime.vmm.accelerator import Machine

OCI_VERSION = "1.0.2"  # of the runtime specification whose state document this is
_SHUTDOWN_SECONDS = 15.0
_GRACEFUL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run(
    config: Config, wanted: str | None, root: Path, progress: Callable[[str], None], announce: Callable[[str], None]
) -> None:
    """Boot a sandbox and ``announce`` its ID once its agent answers; after a failure nothing of it is left.

    Also a failure of ``announce`` is one: nobody would know the ID. ``progress`` hears what is worth knowing, and of a
    guest that did not boot the last it printed.

    :raise InputError: an impossible ID. :raise ConflictError: it exists already.
    :raise HostError, BootError: the host or the guest failed.
    """
    container_id = new_id() if wanted is None else check_id(wanted)
    try:
        with ExitStack() as undo:
            with ExitStack() as locks:
                make(config, container_id, root, progress, locks, undo)
            # Without the lock: whoever reads the output may be slow.
            announce(container_id)
            undo.pop_all()
    except BootError as error:
        for line in error.console:
            progress(f"guest: {line}")
        raise
    except OSError as error:
        # No descriptors, no memory, no room: what it was for matters less than that the host is short of it.
        raise HostError.of(f"cannot make container {container_id}", error) from error


def make(
    config: Config, container_id: str, root: Path, progress: Callable[[str], None], locks: ExitStack, undo: ExitStack,
    *, pod_cgroups: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Boot a sandbox, hold its lock by ``locks``, and register its removal with ``undo``.

    ``pod_cgroups`` are those that an engine reserves for a pod, and make the sandbox one.

    :raise ConflictError: it exists already. :raise HostError, BootError: the host or the guest failed.
    """
    question = kvm_question(config)
    config = config._replace(path=question.qemu)
    directory = os.path.join(root, container_id)
    with held_signals():
        _make_directory(root, directory)
        undo.callback(_undo_run, directory, container_id)
    locks.enter_context(held(str(root), container_id))
    record = Record(
        container_id,
        boot_id=boot_id(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        qemu=config.path,
        vcpus=config.default_vcpus,
        root_ports=config.default_root_ports,
        kernel_parameters=kernel_parameters(config),
        shared_memory=config.shared_memory,
        ipvs_rule_limit=config.ipvs_rule_limit,
        ready=False,
        cgroups=_cgroups(directory, container_id) if pod_cgroups is None else tuple(pod_cgroups),
        pod=pod_cgroups is not None,
    )
    with _boot_counted(str(root), directory):
        _boot_somehow(config, directory, record, question, progress)


@contextmanager
def _boot_counted(root: str, directory: str) -> Iterator[None]:
    """Count a boot for whoever monitors the sandbox, and for all of the root, as a failed one leaves no sandbox."""
    began = time.monotonic()
    is_failure = True
    try:
        yield
        is_failure = False
    finally:
        seconds = time.monotonic() - began
        count(SandboxPaths(directory).operations, BOOT, seconds, is_failure=is_failure)
        with suppress(KataError, OSError):
            operation_counters.count_for_root(root, BOOT, seconds, is_failure=is_failure)


def _boot_somehow(
    config: Config, directory: str, record: Record, question: Machine, progress: Callable[[str], None]
) -> None:
    """Boot with the accelerator asked for; a boot that proves KVM is the boot."""

    def attempt(accelerator: str, seconds: float) -> None:
        attempted = record._replace(accelerator=accelerator)

        def save(pid: int, start_time: int, *, ready: bool) -> None:
            save_record(directory, attempted._replace(pid=pid, start_time=start_time, ready=ready))

        start = partial(
            boot,
            config,
            directory,
            record.container_id,
            accelerator=accelerator,
            cgroups=record.cgroups,
            save=save,
            counted=record.pod,
        )
        key = template_key(question, machine_arguments(config, accelerator))
        boot_with_template(config, key, start, seconds, progress)

    accelerator = choose(config.accelerator, question)
    if accelerator is Accelerator.TCG or config.accelerator != "auto":
        attempt(str(accelerator), BOOT_SECONDS)
        return
    seconds = PROOF_SECONDS if accelerator is None else BOOT_SECONDS
    try:
        attempt(Accelerator.KVM, seconds)
    except BootError as error:
        failure = error
    else:
        if accelerator is None:
            remember(question, works=True)
        return
    progress(f"the guest did not boot with KVM, trying without: {failure.message}")
    certain = is_kvm_failure(failure.printed)
    if certain:
        remember(question, works=False)
    begun = time.monotonic()
    # Where this fails, too, the reason is another one, and nothing is learnt about KVM.
    attempt(Accelerator.TCG, BOOT_SECONDS)
    # Nor is it on a host that is too busy even for TCG within the time that KVM had, or short of something.
    busy = failure.timed_out and time.monotonic() - begun > seconds
    if certain or not (busy or is_shortage(failure.printed)):
        remember(question, works=False)
        progress("KVM does not work on this host, sandboxes run slower without it; 'kata-check --renew' forgets that")


def _undo_run(directory: str, container_id: str) -> None:
    """Remove what ``run`` made; where a process of it does not end, the directory stays to name it.

    :raise DeadlineError: one does not.
    """
    end_processes(directory, container_id)
    with suppress(HostError):
        cgroup.remove(_believable(directory, container_id).cgroups)
    remove_mounts(directory)
    shutil.rmtree(directory, ignore_errors=True)


def _make_directory(root: Path, directory: str) -> None:
    check_root(str(root))
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError as error:
        name = os.path.basename(directory)
        raise ConflictError(f"container {name} exists already", hint="choose another ID or delete it") from error
    except OSError as error:
        raise HostError.of(f"cannot make {directory}", error) from error


def list_sandboxes(
    root: Path, warn: Callable[[str], None], state_of: Callable[[Path, str], dict[str, object]]
) -> list[dict[str, object]]:
    """The states, by ``state_of``, of all sandboxes and containers, by ID.

    One whose record cannot be read has the status "unreadable", and ``warn`` hears why.

    :raise HostError: the directory cannot be read.
    """
    states = []
    for container_id in sandbox_ids(str(root)):
        try:
            states.append(state_of(root, container_id))
        except ContainerError:
            continue  # deleted meanwhile
        except HostError as error:
            warn(f"container {container_id}: {error}")
            running = sandbox_processes(os.path.join(root, container_id), container_id)
            states.append(_document(str(root), container_id, "unreadable", running[0][0] if running else 0))
    return states


def state(root: Path, text: str) -> dict[str, object]:
    """The state of one sandbox (OCI runtime specification, "State").

    :raise ContainerError: there is none of that ID, or several. :raise HostError: its record is damaged.
    """
    return _state(str(root), resolve(str(root), text))


def _state(root: str, container_id: str) -> dict[str, object]:
    directory = os.path.join(root, container_id)
    record = _loaded(directory, container_id)
    running = is_alive(record.pid, record.start_time)
    if record.ready:
        status = "running" if running else "stopped"
    else:
        status = "creating" if running or _is_held(directory, container_id) else "stopped"
    return _document(root, container_id, status, record.pid if running else 0)


def _document(root: str, container_id: str, status: str, pid: int) -> dict[str, object]:
    return {
        "ociVersion": OCI_VERSION,
        "id": container_id,
        "status": status,
        "pid": pid,
        "bundle": os.path.join(root, container_id),
    }


def _is_held(directory: str, container_id: str) -> bool:
    try:
        lock = LockFile(SandboxPaths(directory).lock)
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


def kill(root: Path, text: str, number: int, lock_wait: LockWait) -> None:
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
    if number == signal.SIGKILL:
        # Without the lock: whoever holds it may be waiting for this very VM.
        _kill_at_once(directory, container_id)
        return
    require_running(_loaded(directory, container_id))
    with locked(str(root), container_id, lock_wait) as record:
        require_running(record)
        channel = AgentChannel(SandboxPaths(directory).control, "")
        try:
            channel.shutdown()
            await_end(record.pid, record.start_time, _SHUTDOWN_SECONDS)
        except KataError as error:
            error.hint = f"'kata-runtime kill {container_id} KILL' ends it at once"
            raise
        finally:
            channel.close()


def _kill_at_once(directory: str, container_id: str) -> None:
    try:
        record = _loaded(directory, container_id)
    except HostError:
        if not sandbox_processes(directory, container_id):
            raise
        end_processes(directory, container_id)
        return
    if not is_alive(record.pid, record.start_time):
        require_running(record)
    kill_process(record.pid, record.start_time)


def delete(root: Path, text: str, lock_wait: LockWait, *, force: bool, release: Callable[[Record], None]) -> None:
    """Remove every trace of a stopped container; with ``force`` of a running one, too.

    ``release`` takes away what the host holds for it outside its directory, once its VM has ended.

    :raise ConflictError: it runs. :raise ContainerError: there is none.
    :raise HostError: a file cannot be removed.
    """
    container_id = resolve(str(root), text)
    directory = os.path.join(root, container_id)
    if force:
        # Before the lock is taken: a command that holds it fails at once instead of at its deadline.
        end_processes(directory, container_id)
    with held(str(root), container_id, lock_wait):
        if not force:
            record = _loaded(directory, container_id)
            unknown = not record.pid and sandbox_processes(directory, container_id)
            if is_alive(record.pid, record.start_time) or unknown:
                raise ConflictError(
                    f"container {container_id} is running",
                    hint=f"'kata-runtime kill {container_id}' stops it, 'delete --force' does both",
                )
        remove(str(root), container_id, release)


def remove(root: str, container_id: str, release: Callable[[Record], None]) -> None:
    """End what runs of a sandbox and remove every trace of it, by whoever holds its lock; ``release`` as in ``delete``.

    :raise HostError, DeadlineError: something stays; the directory then still names it.
    """
    directory = os.path.join(root, container_id)
    end_processes(directory, container_id)
    record = _believable(directory, container_id)
    release(record)
    cgroup.remove(record.cgroups)
    # First: behind a mount that stayed would lie a container's files.
    remove_mounts(directory)
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise HostError.of(f"cannot remove {directory}", error) from error


def _believable(directory: str, container_id: str) -> Record:
    """The record; in place of a damaged or missing one what can be known without it."""
    try:
        return load_record(directory)
    except (FileNotFoundError, HostError):
        return Record(container_id, ready=False, cgroups=_cgroups(directory, container_id))


def _cgroups(directory: str, container_id: str) -> tuple[str, ...]:
    return cgroup.places(f"kata-runtime-{container_id}-{user_of(directory):x}")


def _loaded(directory: str, container_id: str) -> Record:
    try:
        return load_record(directory)
    except FileNotFoundError:
        # The command that was making it ended before it wrote anything.
        return Record(container_id, ready=False)
