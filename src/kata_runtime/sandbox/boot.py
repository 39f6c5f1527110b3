"""Starting a sandbox's QEMU and waiting for its agent."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kata_runtime import operation_log, unix_socket
from kata_runtime.errors import HostError, KataError
from kata_runtime.guest import wire
from kata_runtime.guest.image import KERNEL_PARAMETERS
from kata_runtime.guest.port import GuestPort
from kata_runtime.sandbox import cgroup, paths
from kata_runtime.sandbox.boot_failure import boot_error
from kata_runtime.sandbox.confinement import THREADS, confinement_of
from kata_runtime.sandbox.identity import NOBODY, user_of
from kata_runtime.sandbox.process import Child, Program
from kata_runtime.vmm.accelerator import Accelerator, Machine
from kata_runtime.vmm.command import Port, VmConfig, cpu_model, qemu_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata_runtime.sandbox.config import Config

# Under TCG on two busy cores; 4 s are usual.
BOOT_SECONDS = 120.0
# A guest under a KVM that works is up in one; one that does not hangs or ends.
PROOF_SECONDS = 15.0

_READY = b"1"


class Save(Protocol):
    """Puts a QEMU on record."""

    def __call__(self, pid: int, start_time: int, *, ready: bool) -> None: ...


def find_qemu(path: str) -> str:
    """The program that ``path`` names, absolute.

    :raise HostError: there is none.
    """
    found = shutil.which(path)
    if found is None:
        raise HostError(f"there is no QEMU {path!r}", hint="install qemu-system-x86, or set path in the configuration")
    return os.path.realpath(found)


def check_image(config: Config) -> str:
    """What identifies the image's kernel and initrd, without reading them.

    :raise HostError: one is missing.
    """
    facts = []
    for path in (config.kernel, config.initrd):
        try:
            found = os.stat(path)
        except OSError as error:
            raise HostError(
                f"cannot use {path}: {error.strerror}",
                errno=error.errno or 0,
                hint="'kata-runtime image build' makes a guest image",
            ) from error
        facts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return " ".join(facts)


def kernel_parameters(config: Config) -> str:
    """The guest kernel's command line."""
    return " ".join([*KERNEL_PARAMETERS, *([config.kernel_params] if config.kernel_params else [])])


def kvm_question(config: Config) -> Machine:
    """What a verdict on KVM is asked and remembered for.

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
    save: Save,
) -> None:
    """Start QEMU and wait until the agent answers; after a failure nothing of it runs.

    ``save`` is called before QEMU begins, and when the agent has answered (``ready``).

    :raise BootError: QEMU ended, or the agent did not answer within ``seconds``.
    :raise HostError: QEMU cannot be started.
    """
    with ExitStack() as undo, ExitStack() as ours:
        guard_out, guard = _pipe(ours)
        qemu, log = _start(config, directory, container_id, accelerator, guard_out, undo)
        save(qemu.pid, qemu.start_time, ready=False)
        # Each is in its groups before its program begins.
        for child in (qemu, log):
            cgroup.join(cgroups, child.pid, config.default_vcpus + THREADS)
        log.release()
        qemu.release()
        try:
            GuestPort(os.path.join(directory, paths.CONTROL), seconds=seconds).close()
        except KataError as error:
            raise boot_error(error, directory, qemu, log, seconds) from error
        save(qemu.pid, qemu.start_time, ready=True)
        os.write(guard, _READY)
        undo.pop_all()
        qemu.forget()
        log.forget()


def _pipe(ours: ExitStack) -> tuple[int, int]:
    readable, writable = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, readable)
    ours.callback(os.close, writable)
    return readable, writable


def _start(
    config: Config, directory: str, container_id: str, accelerator: str, guard: int, undo: ExitStack
) -> tuple[Child, Child]:
    """QEMU and the keeper of its output, not released; our copies of their descriptors are closed.

    QEMU's sockets listen already, so that their end is QEMU's.
    """
    user = user_of(directory)
    shared = user == NOBODY
    with ExitStack() as inherited:
        listening = _listen(directory, inherited)
        console, console_end = socket.socketpair()
        inherited.callback(console.close)
        inherited.callback(console_end.close)
        output, output_end = _pipe(inherited)
        # What QEMU prints while nobody reads is lost: it must never wait for the one who keeps it.
        os.set_blocking(output_end, False)
        machine = _machine(config, container_id, accelerator, listening, console_end.fileno())
        argv = qemu_arguments(machine)
        if operation_log.is_wanted():
            operation_log.note("qemu", command=shlex.join(argv))
        groups = [user, *_device_groups(accelerator)]
        confinement = confinement_of(user, groups, vcpus=config.default_vcpus, user_is_shared=shared)
        kept = [console_end.fileno(), *(item.fileno() for item in listening.values())]
        qemu = Child(Program(argv, confinement, output_end, kept), undo)
        script = _script(inherited)
        files = [_log_file(directory, name, inherited) for name in (paths.CONSOLE_LOG, paths.QEMU_LOG)]
        descriptors = [console.fileno(), files[0], output, files[1], qemu.fd, guard]
        argv = [os.path.realpath(sys.executable), "-I", "-S", f"/proc/self/fd/{script}", f"guest={container_id}"]
        argv += map(str, descriptors)
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        inherited.callback(os.close, nowhere)
        confinement = confinement_of(user, [user], vcpus=config.default_vcpus, user_is_shared=shared)
        return qemu, Child(Program(argv, confinement, nowhere, [script, *descriptors]), undo)


def _script(inherited: ExitStack) -> int:
    """The program that keeps the output, as a descriptor: its file may lie where only root can search."""
    copied = os.memfd_create("output_log")
    inherited.callback(os.close, copied)
    os.write(copied, Path(__file__).with_name("output_log.py").read_bytes())
    return copied


def _log_file(directory: str, name: str, inherited: ExitStack) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    opened = os.open(os.path.join(directory, name), flags, 0o600)
    inherited.callback(os.close, opened)
    return opened


def _device_groups(accelerator: str) -> list[int]:
    if accelerator != "kvm":
        return []
    found = os.stat("/dev/kvm")
    return [found.st_gid] if found.st_mode & stat.S_IRGRP and found.st_gid else []


def _listen(directory: str, inherited: ExitStack) -> dict[str, socket.socket]:
    names = [paths.MONITOR, paths.CONTROL, *map(paths.exec_socket, range(paths.EXEC_PORTS))]
    listening = {}
    for name in names:
        path = os.path.join(directory, name)
        Path(path).unlink(missing_ok=True)  # of an attempt with another accelerator
        try:
            listening[name] = inherited.enter_context(unix_socket.listen(path))
        except OSError as error:
            raise HostError(f"cannot listen at {path}: {error.strerror}", errno=error.errno or 0) from error
    return listening


def _machine(
    config: Config, container_id: str, accelerator: str, listening: dict[str, socket.socket], console: int
) -> VmConfig:
    ports = [Port(wire.CONTROL_PORT, listening[paths.CONTROL].fileno())]
    ports += [
        Port(f"{wire.EXEC_PORT_PREFIX}{number}", listening[paths.exec_socket(number)].fileno())
        for number in range(paths.EXEC_PORTS)
    ]
    return VmConfig(
        qemu=find_qemu(config.path),
        kernel=Path(config.kernel),
        initrd=Path(config.initrd),
        kernel_parameters=kernel_parameters(config),
        machine_type=config.machine_type,
        accelerator=accelerator,
        vcpus=config.default_vcpus,
        memory_mib=config.default_memory,
        root_ports=config.default_root_ports,
        shared_memory=config.shared_memory,
        monitor_fd=listening[paths.MONITOR].fileno(),
        console_fd=console,
        ports=tuple(ports),
        name=container_id,
        debug=config.enable_debug,
    )
