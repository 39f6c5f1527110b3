"""Starting a sandbox's QEMU and waiting for its agent."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from kata_runtime import unix_socket
from kata_runtime.errors import DeadlineError, GuestError, HostError, KataError
from kata_runtime.guest import wire
from kata_runtime.guest.image import KERNEL_PARAMETERS
from kata_runtime.guest.port import GuestPort
from kata_runtime.sandbox import paths
from kata_runtime.sandbox.process import kill_process, spawn, start_time_of
from kata_runtime.vmm.command import Port, VmConfig, qemu_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.sandbox.config import Config

# Under TCG on two busy cores; 4 s are usual.
BOOT_SECONDS = 120.0
# A guest under a KVM that works is up in one; one that does not hangs or ends.
PROOF_SECONDS = 15.0

_CONSOLE_BYTES = 64 * 1024
_CONSOLE_LINES = 20

# The range between what systemd and container engines give away (systemd's "Users, Groups, UIDs and GIDs").
_USER_BASE = 0x70000000
_USER_COUNT = 0x0F000000
_NOBODY = 65534


class BootError(GuestError):
    """A guest did not come up; ``console`` holds the last lines it printed."""

    def __init__(self, message: str, console: list[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.console = console


class Started(NamedTuple):
    """A QEMU whose agent answers."""

    pid: int
    start_time: int


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


def boot(
    config: Config,
    directory: str,
    container_id: str,
    *,
    accelerator: str,
    seconds: float,
    started: Callable[[int, int], None],
) -> Started:
    """Start QEMU and wait until the agent answers; after a failure nothing of it runs.

    ``started`` is told pid and start time before QEMU begins.

    :raise BootError: QEMU ended, or the agent did not answer within ``seconds``.
    :raise HostError: QEMU cannot be started.
    """
    with ExitStack() as undo:
        pid = _start(config, directory, container_id, accelerator, started)
        undo.callback(os.waitpid, pid, 0)
        start_time = start_time_of(pid) or 0
        undo.callback(kill_process, pid, start_time)
        console = undo.enter_context(_Console(os.path.join(directory, paths.CONSOLE)))
        try:
            GuestPort(os.path.join(directory, paths.CONTROL), seconds=seconds).close()
        except KataError as error:
            raise _failed(error, directory, console, seconds) from error
        finally:
            console.store(os.path.join(directory, paths.CONSOLE_LOG))
        console.close()
        undo.pop_all()
        return Started(pid, start_time)


def _start(
    config: Config, directory: str, container_id: str, accelerator: str, started: Callable[[int, int], None]
) -> int:
    """Start QEMU with its sockets listening already; our copies of them are closed, so that its end is theirs."""
    with ExitStack() as inherited:
        listening = _listen(directory, inherited)
        log_flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        log = os.open(os.path.join(directory, paths.QEMU_LOG), log_flags, 0o600)
        inherited.callback(os.close, log)
        user = user_of(directory)
        return spawn(
            qemu_arguments(_machine(config, container_id, accelerator, listening)),
            user=user,
            groups=[user, *_device_groups(accelerator)],
            output=log,
            keep=[item.fileno() for item in listening.values()],
            started=lambda pid: started(pid, start_time_of(pid) or 0),
        )


def user_of(directory: str) -> int:
    """The unprivileged user and group that the QEMU of a sandbox runs as: none other has it."""
    from hashlib import sha256

    user = _USER_BASE + int.from_bytes(sha256(directory.encode()).digest()[:4], "big") % _USER_COUNT
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        ranges = [(int(inside), int(count)) for inside, _, count in map(str.split, lines)]
    # In a user namespace of its own the runtime may have few users to give.
    return user if any(first <= user < first + count for first, count in ranges) else _NOBODY


def _device_groups(accelerator: str) -> list[int]:
    if accelerator != "kvm":
        return []
    found = os.stat("/dev/kvm")
    return [found.st_gid] if found.st_mode & stat.S_IRGRP and found.st_gid else []


def _listen(directory: str, inherited: ExitStack) -> dict[str, socket.socket]:
    names = [paths.MONITOR, paths.CONSOLE, paths.CONTROL, *map(paths.exec_socket, range(paths.EXEC_PORTS))]
    listening = {}
    for name in names:
        path = os.path.join(directory, name)
        Path(path).unlink(missing_ok=True)  # of an attempt with another accelerator
        try:
            listening[name] = inherited.enter_context(unix_socket.listen(path))
        except OSError as error:
            raise HostError(f"cannot listen at {path}: {error.strerror}", errno=error.errno or 0) from error
    return listening


def _machine(config: Config, container_id: str, accelerator: str, listening: dict[str, socket.socket]) -> VmConfig:
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
        console_fd=listening[paths.CONSOLE].fileno(),
        ports=tuple(ports),
        name=container_id,
        debug=config.enable_debug,
    )


def _failed(error: KataError, directory: str, console: _Console, seconds: float) -> BootError:
    if isinstance(error, DeadlineError):
        return BootError(f"the guest's agent did not answer within {seconds:g} s of boot", console.tail())
    with open(os.path.join(directory, paths.QEMU_LOG), encoding="utf-8", errors="replace") as file:
        said = file.read(_CONSOLE_BYTES).split("\n")
    reason = next((line for line in reversed(said) if line.strip()), "without a word")
    return BootError(f"QEMU ended before the guest was up: {reason}", console.tail())


class _Console:
    """The last of what the guest prints while it boots: read all the time, so that it never waits for us."""

    def __init__(self, path: str) -> None:
        self._socket = unix_socket.connect(path, BOOT_SECONDS)
        self._socket.settimeout(None)
        self._text = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; from now on QEMU drops what the guest prints."""
        with suppress(OSError):  # QEMU can have closed it already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(4096)
            except OSError:
                return
            if not data:
                return
            self._text += data
            if len(self._text) > 2 * _CONSOLE_BYTES:
                del self._text[:-_CONSOLE_BYTES]

    def tail(self) -> list[str]:
        """The last lines."""
        lines = bytes(self._text[-_CONSOLE_BYTES:]).decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-_CONSOLE_LINES:]

    def store(self, path: str) -> None:
        """Write what is kept to a file beside the record."""
        Path(path).write_bytes(bytes(self._text[-_CONSOLE_BYTES:]))
