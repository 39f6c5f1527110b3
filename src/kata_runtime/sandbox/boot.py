"""Starting a sandbox's QEMU and waiting for its agent."""

from __future__ import annotations

import os
import stat
import sys
from _socket import AF_UNIX, SOCK_STREAM, socketpair

from kata_runtime import operation_log, unix_socket
from kata_runtime.errors import HostError, KataError
from kata_runtime.fast_contextlib import ExitStack, suppress
from kata_runtime.guest import wire
from kata_runtime.guest.image import KERNEL_PARAMETERS
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox import cgroup
from kata_runtime.sandbox.boot_failure import boot_error
from kata_runtime.sandbox.confinement import THREADS, confinement_of
from kata_runtime.sandbox.guest_memory import create_memory, load_memory
from kata_runtime.sandbox.identity import NOBODY, user_of
from kata_runtime.sandbox.paths import EXEC_PORTS, SandboxPaths
from kata_runtime.sandbox.process import Child, Program
from kata_runtime.vmm.accelerator import Accelerator, Machine
from kata_runtime.vmm.architecture import ARCHITECTURE
from kata_runtime.vmm.qemu_arguments import Port, VmConfig, cpu_model, qemu_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as connection
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from kata_runtime.sandbox.config import Config
    from kata_runtime.sandbox.template import Template
    from kata_runtime.vmm.monitor import Monitor

    class StoreTemplate(Protocol):
        """Stores a paused VM as a template: its memory (a descriptor) and the device state from its monitor."""

        def __call__(self, memory: int, monitor: Monitor, /) -> None: ...

    class SaveProcess(Protocol):
        """Writes QEMU's pid and start time to the record; ``ready``: the agent has answered."""

        def __call__(self, pid: int, start_time: int, *, ready: bool) -> None: ...


# Deadline of a boot under TCG on two busy cores; 4 s are usual.
BOOT_SECONDS = 120.0
# Deadline of the first boot with KVM: where KVM works the guest boots in 1 s, otherwise it hangs or QEMU ends.
PROOF_SECONDS = 15.0

_READY = b"1"
# QEMU opens its monitor at the end of its start, on a busy host after seconds.
_MONITOR_SECONDS = 20.0
_HOST_NAME_CHARACTERS = 12


def find_qemu(path: str) -> str:
    """The absolute path of the QEMU program that ``path`` names.

    :raise HostError: there is none.
    """
    places = [path] if os.path.dirname(path) else [os.path.join(place, path) for place in os.get_exec_path()]
    for place in places:
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.realpath(place)
    package = ARCHITECTURE.qemu_package
    raise HostError(f"there is no QEMU {path!r}", hint=f"install {package}, or set path in the configuration")


def check_image(config: Config) -> str:
    """Path, size and modification time of the image's kernel and initrd, which identify the image.

    :raise HostError: one is missing.
    """
    facts = []
    for path in (config.kernel, config.initrd):
        try:
            found = os.stat(path)
        except OSError as error:
            raise HostError.of(
                f"cannot use {path}", error, hint="'kata-runtime image build' makes a guest image"
            ) from error
        facts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return " ".join(facts)


def kernel_parameters(config: Config) -> str:
    """The guest kernel's command line."""
    return " ".join([*KERNEL_PARAMETERS, *([config.kernel_params] if config.kernel_params else [])])


def kvm_question(config: Config) -> Machine:
    """The settings for which the result of trying KVM is remembered.

    :raise HostError: QEMU or the image is missing.
    """
    settings = [
        config.machine_type, cpu_model(Accelerator.KVM), config.default_vcpus, config.default_memory,
        config.default_root_ports, config.shared_memory, kernel_parameters(config),
    ]  # fmt: skip
    return Machine(find_qemu(config.path), check_image(config), " ".join(map(str, settings)))


def boot(
    config: Config,
    directory: str,
    container_id: str,
    *,
    accelerator: str,
    seconds: float,
    cgroups: Sequence[str],
    save: SaveProcess,
    counted: bool = False,
    template: Template | None = None,
    keep: StoreTemplate | None = None,
) -> None:
    """Start QEMU and wait until the agent answers; after a failure no process of it runs.

    ``save`` is called before QEMU begins, and when the agent has answered (``ready``). With ``template`` the VM is
    restored from it instead of booted; ``keep`` is called while the booted VM is paused. ``counted`` is as in
    ``cgroup.join``.

    :raise BootError: QEMU ended, or the agent did not answer within ``seconds``.
    :raise HostError: QEMU cannot be started.
    """
    with ExitStack() as undo, ExitStack() as ours:
        guard_out, guard = _pipe(ours)
        memory = _memory(config, ours)
        vm = _Vm(config, container_id, accelerator, memory, from_snapshot=template is not None)
        qemu, log = _start(vm, directory, guard_out, undo)
        save(qemu.pid, qemu.start_time, ready=False)
        # Each process joins its groups before it executes its program.
        for child in (qemu, log):
            cgroup.join(cgroups, child.pid, config.default_vcpus + THREADS, counted=counted)
        failure = _begin(qemu, log, template, memory)
        try:
            if failure is not None:
                raise failure
            if keep is not None:
                _keep(directory, memory, keep, seconds)
            _renew(directory, container_id, seconds, template)
        except KataError as error:
            raise boot_error(error, directory, qemu, log, seconds) from error
        save(qemu.pid, qemu.start_time, ready=True)
        os.write(guard, _READY)
        undo.pop_all()
        qemu.forget()
        log.forget()


def machine_arguments(config: Config, accelerator: str) -> list[str]:
    """QEMU's arguments that are the same for all sandboxes of a configuration; a part of the template's key.

    :raise HostError: QEMU is missing.
    """
    nothing = dict.fromkeys(_socket_paths(""), 0)
    memory = 0 if config.shared_memory else -1
    return qemu_arguments(_machine(_Vm(config, "", accelerator, memory, from_snapshot=False), "", nothing, 0))


def _memory(config: Config, ours: ExitStack) -> int:
    if not config.shared_memory:
        return -1
    memory = create_memory(config.default_memory << 20)
    ours.callback(os.close, memory)
    return memory


def _begin(qemu: Child, log: Child, template: Template | None, memory: int) -> HostError | None:
    """Let QEMU and the output log begin, and copy the template's memory meanwhile; why that failed, if it did.

    :raise HostError: one of the two cannot be started.
    """
    failure = None
    log.open_gate()
    qemu.open_gate()
    if template is not None:
        try:
            load_memory(template.memory, memory)
        except OSError as error:
            failure = HostError.of("cannot copy the template's memory", error)
    log.await_program()
    qemu.await_program()
    return failure


def _keep(directory: str, memory: int, keep: StoreTemplate, seconds: float) -> None:
    """Prepare a booted guest, and store its VM as a template; the agent has ``seconds`` for its first answer."""
    from kata_runtime.guest.host_port import GuestPort
    from kata_runtime.sandbox.template_preparation import prepare_guest
    from kata_runtime.vmm.snapshot import stopped

    # Closed before the VM is saved, whose state includes which ports are connected.
    GuestPort(SandboxPaths(directory).control, seconds=seconds).close()
    prepare_guest(directory)
    with _monitor(directory) as monitor, stopped(monitor):
        keep(memory, monitor)


def _monitor(directory: str) -> Monitor:
    from kata_runtime.vmm.monitor import Monitor

    return Monitor.connect(SandboxPaths(directory).monitor, _MONITOR_SECONDS)


def _renew(directory: str, container_id: str, seconds: float, template: Template | None) -> None:
    """Send the guest its first request: a new host name and, after a template, new random numbers and clock.

    The agent has ``seconds`` to answer.
    """
    # Imported while QEMU starts.
    from kata_runtime.guest.answer_limits import DEFAULT
    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.vmm.snapshot import load_devices, resume

    with ExitStack() as stack:
        monitor = None
        if template is not None:
            monitor = stack.enter_context(_monitor(directory))
            load_devices(monitor, template.devices)
        # Connected before a restored guest runs: without KVM each interrupt more costs it milliseconds.
        channel = AgentChannel(SandboxPaths(directory).control, "", DEFAULT._replace(connect_seconds=seconds))
        stack.callback(channel.close)
        if monitor is not None:
            resume(monitor)
        channel.renew(container_id[:_HOST_NAME_CHARACTERS])


def _pipe(ours: ExitStack) -> tuple[int, int]:
    readable, writable = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, readable)
    ours.callback(os.close, writable)
    return readable, writable


class _Vm(NamedTuple):
    """The parameters of a VM; ``memory`` is a descriptor, or -1 for memory that is not shared."""

    config: Config
    container_id: str
    accelerator: str
    memory: int
    from_snapshot: bool


def _start(vm: _Vm, directory: str, guard: int, undo: ExitStack) -> tuple[Child, Child]:
    """Fork QEMU and the output log, which wait to be released; this process's copies of their descriptors are closed.

    QEMU inherits listening sockets: connections to them fail when QEMU ends.
    """
    user = user_of(directory)
    shared = user == NOBODY
    vcpus = vm.config.default_vcpus
    with ExitStack() as inherited:
        listening = _listen(directory, inherited)
        console, console_end = socketpair(AF_UNIX, SOCK_STREAM)
        inherited.callback(console.close)
        inherited.callback(console_end.close)
        output, output_end = _pipe(inherited)
        # QEMU must never block on the output log: what it prints while the pipe is full is lost.
        os.set_blocking(output_end, False)
        sockets = {path: item.fileno() for path, item in listening.items()}
        argv = qemu_arguments(_machine(vm, directory, sockets, console_end.fileno()))
        if operation_log.is_wanted():
            import shlex

            operation_log.note("qemu", command=shlex.join(argv))
        groups = [user, *_device_groups(vm.accelerator)]
        confinement = confinement_of(user, groups, vcpus=vcpus, user_is_shared=shared)
        kept = [console_end.fileno(), *sockets.values(), *([vm.memory] if vm.memory >= 0 else [])]
        qemu = Child(Program(argv, confinement, output_end, kept), undo)
        script = _script(inherited)
        paths = SandboxPaths(directory)
        files = [_log_file(path, inherited) for path in (paths.console_log, paths.qemu_log)]
        descriptors = [console.fileno(), files[0], output, files[1], qemu.fd, guard]
        argv = [os.path.realpath(sys.executable), "-I", "-S", f"/proc/self/fd/{script}", f"guest={vm.container_id}"]
        argv += map(str, descriptors)
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        inherited.callback(os.close, nowhere)
        confinement = confinement_of(user, [user], vcpus=vcpus, user_is_shared=shared)
        return qemu, Child(Program(argv, confinement, nowhere, [script, *descriptors]), undo)


def _script(inherited: ExitStack) -> int:
    """A descriptor of a copy of output_log.py: the installed file may be in a directory that only root can search."""
    copied = os.memfd_create("output_log")
    inherited.callback(os.close, copied)
    with open(os.path.join(os.path.dirname(__file__), "output_log.py"), "rb") as file:
        os.write(copied, file.read())
    return copied


def _log_file(path: str, inherited: ExitStack) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    opened = os.open(path, flags, 0o600)
    inherited.callback(os.close, opened)
    return opened


def _device_groups(accelerator: str) -> list[int]:
    if accelerator != "kvm":
        return []
    found = os.stat("/dev/kvm")
    return [found.st_gid] if found.st_mode & stat.S_IRGRP and found.st_gid else []


def _socket_paths(directory: str) -> list[str]:
    paths = SandboxPaths(directory)
    return [paths.monitor, paths.control, *map(paths.exec_socket, range(EXEC_PORTS))]


def _listen(directory: str, inherited: ExitStack) -> dict[str, connection]:
    listening: dict[str, connection] = {}
    for path in _socket_paths(directory):
        with suppress(FileNotFoundError):
            os.unlink(path)  # of an attempt with another accelerator
        try:
            listening[path] = unix_socket.listen(path)
            inherited.callback(listening[path].close)
        except OSError as error:
            raise HostError.of(f"cannot listen at {path}", error) from error
    return listening


def _machine(vm: _Vm, directory: str, sockets: Mapping[str, int], console: int) -> VmConfig:
    """QEMU's configuration; ``sockets`` are descriptors by the paths at which they listen."""
    config = vm.config
    paths = SandboxPaths(directory)
    ports = [Port(wire.CONTROL_PORT, sockets[paths.control])]
    ports += [
        Port(f"{wire.EXEC_PORT_PREFIX}{number}", sockets[paths.exec_socket(number)]) for number in range(EXEC_PORTS)
    ]
    return VmConfig(
        qemu=find_qemu(config.path),
        kernel=config.kernel,
        initrd=config.initrd,
        kernel_parameters=kernel_parameters(config),
        machine_type=config.machine_type,
        accelerator=vm.accelerator,
        vcpus=config.default_vcpus,
        memory_mib=config.default_memory,
        root_ports=config.default_root_ports,
        memory_fd=vm.memory,
        monitor_fd=sockets[paths.monitor],
        console_fd=console,
        ports=tuple(ports),
        name=vm.container_id,
        debug=config.enable_debug,
        from_snapshot=vm.from_snapshot,
    )
