"""run, list, state, exec, kill and delete, with the meaning that the OCI runtime command line gives them."""

from __future__ import annotations

import os
import time

from kata_runtime import fast_signal as signal
from kata_runtime.errors import ConflictError, ContainerError, HostError, InputError, KataError
from kata_runtime.fast_contextlib import ExitStack, contextmanager, suppress
from kata_runtime.fast_functools import partial
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
from kata_runtime.sandbox.files import remove_tree
from kata_runtime.sandbox.identity import check_id, check_root, new_id, resolve, sandbox_ids, user_of
from kata_runtime.sandbox.lock import LockFile, LockWait
from kata_runtime.sandbox.mounts import remove_mounts
from kata_runtime.sandbox.operation_counters import BOOT, count
from kata_runtime.sandbox.paths import LOCK_NAME, SandboxPaths
from kata_runtime.sandbox.process import await_end, held_signals, is_alive, kill_process
from kata_runtime.sandbox.record import Record, boot_id, load_record, save_record
from kata_runtime.sandbox.remains import end_processes, sandbox_processes
from kata_runtime.sandbox.session import held, locked, require_running
from kata_runtime.sandbox.template_boot import boot_with_template, template_key
from kata_runtime.vmm.accelerator import Accelerator, choose, is_kvm_failure, is_shortage, remember

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kata_runtime.sandbox.config import Config
    from kata_runtime.vmm.accelerator import Machine

OCI_VERSION = "1.0.2"  # version of the OCI runtime specification that the state document follows
_SHUTDOWN_SECONDS = 15.0
_GRACEFUL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run(
    config: Config, wanted: str | None, root: str, progress: Callable[[str], None], announce: Callable[[str], None]
) -> None:
    """Boot a sandbox and ``announce`` its ID once its agent answers; after a failure nothing of it is left.

    A failure of ``announce`` counts, too, since the user would not know the ID. ``progress`` gets messages for the
    user, and the last lines of a guest that did not boot.

    :raise InputError: an impossible ID. :raise ConflictError: it exists already.
    :raise HostError, BootError: the host or the guest failed.
    """
    container_id = new_id() if wanted is None else check_id(wanted)
    try:
        with ExitStack() as undo:
            with ExitStack() as locks:
                make(config, container_id, root, progress, locks, undo)
            # Without the lock, as the reader of the output may be slow.
            announce(container_id)
            undo.pop_all()
    except BootError as error:
        for line in error.console:
            progress(f"guest: {line}")
        raise
    except OSError as error:
        # The host is out of descriptors, memory or disk space.
        raise HostError.of(f"cannot make container {container_id}", error) from error


def make(
    config: Config, container_id: str, root: str, progress: Callable[[str], None], locks: ExitStack, undo: ExitStack,
    *, pod_cgroups: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Boot a sandbox. ``locks`` gets its lock, ``undo`` its removal.

    ``pod_cgroups`` are the control groups that an engine reserves for a pod; None for a sandbox that is no pod.

    :raise ConflictError: it exists already. :raise HostError, BootError: the host or the guest failed.
    """
    question = kvm_question(config)
    config = config._replace(path=question.qemu)
    directory = os.path.join(root, container_id)
    with held_signals():
        _make_directory(root, directory)
        undo.callback(_undo_run, directory, container_id)
    locks.enter_context(held(root, container_id))
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
    with _boot_counted(root, directory):
        _boot_with_fallback(config, directory, record, question, progress)


@contextmanager
def _boot_counted(root: str, directory: str) -> Iterator[None]:
    """Count a boot for the sandbox's metrics, and for those of the root, since a failed boot leaves no sandbox."""
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


def _boot_with_fallback(
    config: Config, directory: str, record: Record, question: Machine, progress: Callable[[str], None]
) -> None:
    """Boot with the configured accelerator; ``auto`` tries KVM first and falls back to TCG."""

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
    # If this fails, too, the cause is not KVM, and nothing is remembered.
    attempt(Accelerator.TCG, BOOT_SECONDS)
    # The failure also proves nothing if the host was short of something, or so busy that TCG took longer, too.
    busy = failure.timed_out and time.monotonic() - begun > seconds
    if certain or not (busy or is_shortage(failure.printed)):
        remember(question, works=False)
        progress("KVM does not work on this host, sandboxes run slower without it; 'kata-check --renew' forgets that")


def _undo_run(directory: str, container_id: str) -> None:
    """Remove everything that ``run`` created; if a process does not end, the directory with its record is kept.

    :raise DeadlineError: a process does not end.
    """
    end_processes(directory, container_id)
    with suppress(HostError):
        cgroup.remove(_believable(directory, container_id).cgroups)
    remove_mounts(directory)
    with suppress(OSError):
        remove_tree(directory, last=LOCK_NAME)


def _make_directory(root: str, directory: str) -> None:
    check_root(root)
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.mkdir(directory, 0o700)
    except FileExistsError as error:
        name = os.path.basename(directory)
        raise ConflictError(f"container {name} exists already", hint="choose another ID or delete it") from error
    except OSError as error:
        raise HostError.of(f"cannot make {directory}", error) from error


def list_sandboxes(
    root: str, warn: Callable[[str], None], state_of: Callable[[str, str], dict[str, object]]
) -> list[dict[str, object]]:
    """The states of all sandboxes and containers, as ``state_of`` gives them, sorted by ID.

    If a record cannot be read, the status is "unreadable", and ``warn`` gets the reason.

    :raise HostError: the directory cannot be read.
    """
    states = []
    for container_id in sandbox_ids(root):
        try:
            states.append(state_of(root, container_id))
        except ContainerError:
            continue  # deleted meanwhile
        except HostError as error:
            warn(f"container {container_id}: {error}")
            running = sandbox_processes(os.path.join(root, container_id), container_id)
            states.append(_document(root, container_id, "unreadable", running[0][0] if running else 0))
    return states


def state(root: str, text: str) -> dict[str, object]:
    """The state of one sandbox (OCI runtime specification, "State").

    :raise ContainerError: there is none of that ID, or several. :raise HostError: its record is damaged.
    """
    return _state(root, resolve(root, text))


def _state(root: str, container_id: str) -> dict[str, object]:
    directory = os.path.join(root, container_id)
    record = _loaded(directory, container_id)
    running = is_alive(record.pid, record.start_time)
    if record.ready:
        status = "running" if running else "stopped"
    else:
        status = "creating" if running or is_held(directory, container_id) else "stopped"
    return _document(root, container_id, status, record.pid if running else 0)


def _document(root: str, container_id: str, status: str, pid: int) -> dict[str, object]:
    return {
        "ociVersion": OCI_VERSION,
        "id": container_id,
        "status": status,
        "pid": pid,
        "bundle": os.path.join(root, container_id),
    }


def is_held(directory: str, container_id: str) -> bool:
    """Whether a command holds the container's lock, perhaps the one that is creating it.

    :raise ContainerError: the container was deleted meanwhile.
    """
    try:
        lock = LockFile(SandboxPaths(directory).lock)
    except FileNotFoundError:
        raise ContainerError(f"container {container_id} was deleted meanwhile", container=container_id) from None
    try:
        return not lock.try_acquire()
    finally:
        lock.close()


def execute(root: str, text: str, argv: Sequence[str]) -> int:
    """Run a command in the container with this process's streams; returns its exit status.

    It does not hold the sandbox's lock, so that other commands are not blocked.

    :raise ContainerError: no such running container. :raise GuestError: it cannot be started.
    """
    from kata_runtime.sandbox.guest_command import execute as execute_on_port

    container_id = resolve(root, text)
    directory = os.path.join(root, container_id)
    require_running(_loaded(directory, container_id))
    return execute_on_port(directory, container_id, argv)


def kill(root: str, text: str, number: int, lock_wait: LockWait) -> None:
    """End the container: TERM, INT, HUP and QUIT make the guest shut down, KILL kills its VM.

    :raise InputError: another signal, which has no meaning for a VM.
    :raise DeadlineError: it does not end, or another command held its lock too long.
    :raise ContainerError: no such running container.
    """
    if number not in (*_GRACEFUL, signal.SIGKILL):
        from signal import Signals

        name = Signals(number).name
        raise InputError(
            f"a container cannot take {name}", field="signal", hint="TERM shuts it down, KILL ends it at once"
        )
    container_id = resolve(root, text)
    directory = os.path.join(root, container_id)
    if number == signal.SIGKILL:
        # Without the lock: the command that holds it may be waiting for this VM.
        _kill_at_once(directory, container_id)
        return
    require_running(_loaded(directory, container_id))
    with locked(root, container_id, lock_wait) as record:
        require_running(record)
        from kata_runtime.guest.channel import AgentChannel

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


def delete(root: str, text: str, lock_wait: LockWait, *, force: bool, release: Callable[[Record], None]) -> None:
    """Remove every trace of a stopped container; with ``force`` of a running one, too.

    ``release`` is called when its VM has ended, and deletes what was created for it outside its directory.

    :raise ConflictError: it runs. :raise ContainerError: there is none.
    :raise HostError: a file cannot be removed.
    """
    container_id = resolve(root, text)
    directory = os.path.join(root, container_id)
    if force:
        # Before the lock is taken: so a command that holds it fails now instead of at its deadline.
        end_processes(directory, container_id)
    with held(root, container_id, lock_wait):
        if not force:
            record = _loaded(directory, container_id)
            unknown = not record.pid and sandbox_processes(directory, container_id)
            if is_alive(record.pid, record.start_time) or unknown:
                raise ConflictError(
                    f"container {container_id} is running",
                    hint=f"'kata-runtime kill {container_id}' stops it, 'delete --force' does both",
                )
        remove(root, container_id, release)


def remove(root: str, container_id: str, release: Callable[[Record], None]) -> None:
    """End a sandbox's processes and remove every trace of it; ``release`` as in ``delete``. The caller holds its lock.

    :raise HostError, DeadlineError: something could not be removed; the directory is kept, to try again.
    """
    directory = os.path.join(root, container_id)
    end_processes(directory, container_id)
    record = _believable(directory, container_id)
    release(record)
    cgroup.remove(record.cgroups)
    # Unmount first: rmtree would delete a container's files behind a mount.
    remove_mounts(directory)
    try:
        remove_tree(directory, last=LOCK_NAME)
    except OSError as error:
        raise HostError.of(f"cannot remove {directory}", error) from error


def _believable(directory: str, container_id: str) -> Record:
    """The record; if it is damaged or missing, one with the values that can be known without it."""
    try:
        return load_record(directory)
    except (FileNotFoundError, HostError):
        return Record(container_id, ready=False, cgroups=_cgroups(directory, container_id))


def _cgroups(directory: str, container_id: str) -> tuple[str, ...]:
    return cgroup.group_directories(f"kata-runtime-{container_id}-{user_of(directory):x}")


def _loaded(directory: str, container_id: str) -> Record:
    try:
        return load_record(directory)
    except FileNotFoundError:
        # The command that was creating it ended before it wrote a record.
        return Record(container_id, ready=False)
