"""The pod's shared file system: starts virtiofsd and plugs it into the running VM."""

from __future__ import annotations

import os

from kata_runtime import unix_socket
from kata_runtime.errors import DeadlineError, GuestError, HostError
from kata_runtime.fast_contextlib import ExitStack, closing
from kata_runtime.netlink.transport import Family
from kata_runtime.oci.shared_directory import make_shared_directory
from kata_runtime.sandbox import cgroup, mounts
from kata_runtime.sandbox.confinement import THREADS
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import Child, Program
from kata_runtime.vmm.filesystem import plug_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.guest.subscription import Subscription
    from kata_runtime.sandbox.session import Session

_CONNECT_SECONDS = 5.0
# The guest may have been booted just now, and still be loading modules: half a second on an idle host without KVM.
_APPEAR_SECONDS = 30.0
# After this time the guest is asked whether its kernel knows the file system at all.
_USUAL_SECONDS = 1.0
# A module that is being loaded is waited for; what is built in may be unknown to modprobe.
_KNOWN = "modprobe virtiofs; grep -q virtiofs /proc/filesystems"
_REASON_BYTES = 1024
_UEVENT_GROUP = 1  # of the kernel itself (lib/kobject_uevent.c)
# Open files: virtiofsd has a descriptor for each inode that the guest has cached.
_OPEN_FILES = 1 << 20
_PROGRAM_PATHS = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def find_virtiofsd(path: str) -> str:
    """The virtiofsd program at ``path``, or the distribution's if that is empty.

    :raise HostError: it does not exist.
    """
    for place in (path,) if path else _PROGRAM_PATHS:
        if os.access(place, os.X_OK):
            return place
    raise HostError(
        f"there is no virtiofsd {path!r}" if path else "there is no virtiofsd",
        hint="install qemu-system-common, or set virtio_fs_daemon in the configuration",
    )


class Discovery:
    """The guest's discovery of its file system, which takes 0.1 s; the host does other things meanwhile."""

    def __init__(self, channel: AgentChannel, events: Subscription, subscribed: ExitStack) -> None:
        self._channel = channel
        self._events = events
        self._subscribed = subscribed

    def wait(self) -> None:
        """Wait until the guest can mount the file system.

        :raise GuestError, DeadlineError: the guest failed, or its kernel lacks the file system.
        """
        with self._subscribed:
            try:
                self._wait(_USUAL_SECONDS)
            except DeadlineError:
                self._require_known()
                self._wait(_APPEAR_SECONDS)

    def _wait(self, seconds: float) -> None:
        self._events.wait(_is_bound, seconds, "the guest's discovery of its file system")

    def _require_known(self) -> None:
        done = self._channel.run(["sh", "-c", _KNOWN])
        if done.exit_status:
            reason = "; ".join(done.stderr[:_REASON_BYTES].decode(errors="replace").split("\n")).strip("; ")
            raise GuestError(
                f"the container's kernel has no virtiofs: {reason or 'it is not in /proc/filesystems'}",
                hint="containers of engines need CONFIG_VIRTIO_FS",
            )


def serve_files(session: Session, program: str, undo: ExitStack) -> Discovery:
    """Create the sandbox's shared directory, serve it, and plug it into the VM; ``undo`` ends that.

    :raise HostError, QemuError, GuestError, DeadlineError: host, QEMU or guest failed.
    """
    directory = str(session.directory)

    def started(pid: int, start_time: int) -> None:
        session.save(session.record._replace(virtiofsd=pid, virtiofsd_start_time=start_time))
        cgroup.join(session.record.cgroups, pid, THREADS, counted=True)

    path = find_virtiofsd(program)
    undo.callback(mounts.remove_mounts, directory)
    served = make_shared_directory(directory)
    with ExitStack() as passing, ExitStack() as subscribed:
        connection = _start_virtiofsd(path, directory, session.record.pid, served, undo, passing, started)
        channel = session.channel()
        events = subscribed.enter_context(channel.subscribe(Family.UEVENT, _UEVENT_GROUP))
        plug_filesystem(session.monitor(), connection.fileno())
        return Discovery(channel, events, subscribed.pop_all())


def _start_virtiofsd(
    program: str, sandbox: str, machine: int, served: str, undo: ExitStack, passing: ExitStack,
    started: Callable[[int, int], None],
) -> socket:  # fmt: skip
    """Start virtiofsd for ``served`` and QEMU's process ``machine``; ``undo`` ends it.

    Returns QEMU's connection; ``passing`` closes it.

    It enters its own namespaces and keeps eight capabilities (virtiofsd(1), ``sandbox=namespace``), since containers
    can give files any owner. ``started`` is called with pid and start time before the program is executed.

    :raise HostError: it cannot be started.
    """
    path = SandboxPaths(sandbox).virtiofsd
    with ExitStack() as inherited:
        try:
            listening = unix_socket.listen(path)
            inherited.callback(listening.close)
            # The pipe of QEMU's messages, whose reader keeps the latest of both in qemu.log: a guest can make virtiofsd
            # write without end, and a file would fill the host's memory. What the pipe has no room for is lost.
            log = os.open(f"/proc/{machine}/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            inherited.callback(os.close, log)
            # The connection is queued until virtiofsd accepts it: so it needs no retries, and no path that stays.
            connection = passing.enter_context(closing(unix_socket.connect(path, _CONNECT_SECONDS)))
            os.unlink(path)
        except OSError as error:
            raise HostError.of(f"cannot prepare {error.filename or path} for virtiofsd", error) from error
        argv = [
            program, f"--fd={listening.fileno()}", "-f", "-o", f"source={served}", "-o", "sandbox=namespace",
            "-o", "announce_submounts", "-o", "xattr", f"--rlimit-nofile={_OPEN_FILES}",
            "--thread-pool-size=0",  # requests are served in order: guest_mounts relies on it
        ]  # fmt: skip
        # It makes a file as the user who makes it in the guest, of whom FUSE sends a user and a group. Without its own
        # capabilities it would refuse what the guest's kernel, which does the checks (default_permissions), permits by
        # other groups or by the process's capabilities. Its successor in Rust keeps CAP_DAC_OVERRIDE for that reason.
        child = Child(Program(argv, None, log, [listening.fileno()], keeps_capabilities=True), undo)
        started(child.pid, child.start_time)
        child.release()
        undo.callback(child.forget)
    return connection


def _is_bound(event: bytes) -> bool:
    """Whether a uevent reports that the driver is bound to the device (Documentation/ABI: uevent)."""
    return event.startswith(b"bind@") and b"\0DRIVER=virtiofs\0" in event
