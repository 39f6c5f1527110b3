"""Creates a container: the pod's VM for the first one, its files, its network, and its process, which waits."""

from __future__ import annotations

import os
import time

from kata_runtime.errors import ConflictError, HostError, InputError, KataError
from kata_runtime.fast_contextlib import ExitStack, suppress
from kata_runtime.guest.crun import create_request
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.namespace import Namespace
from kata_runtime.network.reconcile import reconcile, release_all
from kata_runtime.oci import container as status_of
from kata_runtime.oci import guest_mounts, host_cgroup
from kata_runtime.oci.bundle import CONFIG, Bundle, read_bundle
from kata_runtime.oci.container import Container, save_container
from kata_runtime.oci.guest_command import FreePort
from kata_runtime.oci.guest_config import ROOT, guest_bundle, guest_config
from kata_runtime.oci.guest_devices import with_guest_devices
from kata_runtime.oci.hooks import run_hooks
from kata_runtime.oci.json_object import JsonObject
from kata_runtime.oci.operations import container_state
from kata_runtime.oci.pid_file import write_pid_file
from kata_runtime.oci.pods import known_containers, sandbox_for
from kata_runtime.oci.process_check import check_process
from kata_runtime.oci.resource_update import check_resources
from kata_runtime.oci.shared_directory import is_shared_here, share, shared_mounts, shared_path, unshare
from kata_runtime.oci.shim import Shim, ShimRequest
from kata_runtime.oci.shim_mounts import View
from kata_runtime.oci.sources import inspect_source
from kata_runtime.oci.virtiofs import serve_files
from kata_runtime.recovery import recover
from kata_runtime.sandbox import cgroup, lifecycle
from kata_runtime.sandbox.boot_failure import BootError
from kata_runtime.sandbox.confinement import THREADS
from kata_runtime.sandbox.identity import check_id
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.process import held_signals, is_alive
from kata_runtime.sandbox.record import boot_id, load_record
from kata_runtime.sandbox.session import Session, held, require_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_runtime.oci.guest_config import GuestConfig
    from kata_runtime.oci.virtiofs import Discovery
    from kata_runtime.sandbox.config import Config

_CREATE_HOOKS = ("prestart", "createRuntime")


class CreateRequest(NamedTuple):
    """The parameters of an engine's create command; ``pid_file`` and ``console_socket`` are paths or empty."""

    container_id: str
    bundle: str
    pid_file: str = ""
    console_socket: str = ""
    systemd_cgroup: bool = False
    reason_log: str = ""


class CreateContext(NamedTuple):
    """The root directory of containers, the configuration of new VMs, and a callback for progress messages."""

    root: str
    config: Callable[[], Config]
    progress: Callable[[str], None]


def create(request: CreateRequest, context: CreateContext) -> Container:
    """Create a container whose process waits for ``start``; after a failure nothing of it is left.

    :raise InputError: the bundle requests what a VM cannot do. :raise ConflictError: the container exists already.
    :raise HostError, QemuError, GuestError, DeadlineError: host, QEMU or guest failed.
    """
    try:
        return _create(request, context)
    except BootError as error:
        for line in error.console:
            context.progress(f"guest: {line}")
        raise
    except OSError as error:
        # The host is out of descriptors, memory or disk space.
        raise HostError.of(f"cannot make container {request.container_id}", error) from error


def _create(request: CreateRequest, context: CreateContext) -> Container:
    check_id(request.container_id)
    given = read_bundle(request.bundle)
    bundle = with_guest_devices(given, lambda: context.config().privileged_without_host_devices)
    _check_terminal(bundle, request)
    document = JsonObject(f"{CONFIG}: ", given.document)
    check_process(document.child("process"))
    check_resources(document.child("linux").child("resources"))
    known = known_containers(context.root)
    sandbox_id = sandbox_for(bundle, known) or request.container_id
    directories = host_cgroup.cgroup_directories(
        bundle.cgroups_path, host_cgroup.host_mountinfo(), systemd=request.systemd_cgroup
    )
    container = Container(
        request.container_id, sandbox_id, bundle.directory,
        created=_now(), annotations=bundle.annotations,
        boot_id=boot_id(), cgroups=tuple(directories), poststop=bundle.hooks.get("poststop", ()),
    )  # fmt: skip
    # Before anything is created, so that impossible requests are refused at once.
    guest = guest_config(
        bundle,
        request.container_id,
        owns_pod=container.owns_pod,
        inspect=inspect_source,
        guest_pid=known.guest_pid,
        groups=os.getgroups(),
    )
    if inspect_source(bundle.root).kind != "directory":
        raise InputError(f"the root file system {bundle.root} is no directory", field="root.path")
    with ExitStack() as locks, ExitStack() as undo:
        follows = False
        if container.owns_pod:
            config = context.config()
            follows = config.follow_network
            session, discovery = _begin_pod(container, config, context, locks, undo)
        else:
            session, discovery = _join_pod(container, context, locks, undo), None
            locks.callback(session.close)
        creation = _Creation(container, bundle, request, session, guest, discovery, undo)
        created = creation.run(follows=follows)
        write_pid_file(request.pid_file, created.shim)
        undo.pop_all()
        return created


def _now() -> str:
    """The time in UTC (RFC 3339)."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06}+00:00"


def _check_terminal(bundle: Bundle, request: CreateRequest) -> None:
    if bundle.terminal and not request.console_socket:
        raise InputError(
            "the process has a terminal and nobody to hand it to",
            hint="use --console-socket, or run it in the foreground",
        )
    if request.console_socket and not bundle.terminal:
        raise InputError("there is a --console-socket and the process has no terminal")


def _begin_pod(
    container: Container, config: Config, context: CreateContext, locks: ExitStack, undo: ExitStack
) -> tuple[Session, Discovery]:
    if not config.shared_memory:
        raise InputError("shared_memory is false in the configuration", hint="virtiofsd needs it")
    lifecycle.make(
        config, container.container_id, context.root, context.progress, locks, undo, pod_cgroups=container.cgroups
    )
    directory = os.path.join(context.root, container.container_id)
    session = Session(context.root, load_record(directory))
    locks.callback(session.close)
    save_container(context.root, container)
    return session, serve_files(session, config.virtio_fs_daemon, undo)


def _join_pod(container: Container, context: CreateContext, locks: ExitStack, undo: ExitStack) -> Session:
    locks.enter_context(held(context.root, container.sandbox_id))
    if not is_shared_here(os.path.join(context.root, container.sandbox_id)):
        raise ConflictError(
            f"container {container.sandbox_id} was created in a mount namespace of its own, which no other can join",
            hint="Podman does so when a container has a user namespace",
        )
    directory = os.path.join(context.root, container.container_id)
    with held_signals():
        _make_member_directory(directory, container)
        undo.callback(_remove_member_directory, directory)
    save_container(context.root, container)
    record = load_record(os.path.join(context.root, container.sandbox_id))
    require_running(record)
    if not is_alive(record.virtiofsd, record.virtiofsd_start_time):
        raise HostError(f"virtiofsd of sandbox {container.sandbox_id} has ended", hint="delete its containers")
    session = Session(context.root, record)
    if record.pending:
        recover(session)
    undo.callback(cgroup.remove, container.cgroups)
    return session


def _make_member_directory(directory: str, container: Container) -> None:
    try:
        os.mkdir(directory, 0o700)
        os.symlink(container.sandbox_id, SandboxPaths(directory).sandbox_link)
    except FileExistsError:
        raise ConflictError(
            f"container {container.container_id} exists already", hint="choose another ID or delete it"
        ) from None
    except OSError as error:
        raise HostError.of(f"cannot make {directory}", error) from error


def _remove_member_directory(directory: str) -> None:
    paths = SandboxPaths(directory)
    for path in (paths.container, paths.exit_status, paths.sandbox_link):
        with suppress(FileNotFoundError):
            os.unlink(path)
    os.rmdir(directory)


class _Creation:
    """The creation of a container in a running sandbox, whose lock the caller holds."""

    def __init__(
        self, container: Container, bundle: Bundle, request: CreateRequest, session: Session, config: GuestConfig,
        discovery: Discovery | None, undo: ExitStack,
    ) -> None:  # fmt: skip
        self._container = container
        self._bundle = bundle
        self._request = request
        self._session = session
        self._config = config
        self._discovery = discovery
        self._undo = undo
        self._directory = os.path.join(session.root, container.sandbox_id)

    def run(self, *, follows: bool) -> Container:
        """Create the container; with ``follows`` its shim mirrors changes of the network namespace."""
        container_id = self._container.container_id
        config = self._config
        shim = Shim(self._undo, self._bundle.namespaces["network"])
        self._save(self._container._replace(shim=shim.pid, shim_start_time=shim.start_time))
        cgroup.join(self._container.cgroups, shim.pid, THREADS, counted=True)
        for name in _CREATE_HOOKS:
            hooks = self._bundle.hooks.get(name, ())
            run_hooks(hooks, container_state(self._container), self._bundle.directory)
        if self._container.owns_pod:
            self._carry_network(shim)
        self._undo.callback(unshare, self._directory, container_id)
        share(self._directory, container_id, config.shares, config.document)
        if self._discovery is not None:
            self._discovery.wait()
        self._undo.callback(self._forget_in_guest)
        guest_pid = self._start(shim, self._network(shim) if follows else "")
        files = tuple(item.source for item in config.shares if not (item.is_directory or item.is_overlay))
        self._save(self._container._replace(status=status_of.CREATED, guest_pid=guest_pid, files=files))
        return self._container

    def _save(self, container: Container) -> None:
        self._container = container
        save_container(self._session.root, container)

    def _carry_network(self, shim: Shim) -> None:
        with Namespace(self._network(shim)) as namespace:
            self._undo.callback(self._release_network)
            reconcile(self._session, namespace, creating=True)

    def _network(self, shim: Shim) -> str:
        return self._bundle.namespaces["network"] or f"/proc/{shim.pid}/ns/net"

    def _release_network(self) -> None:
        release_all(self._session.record, self._session.lock_wait.notify)

    def _start(self, shim: Shim, follow: str) -> int:
        record = self._session.record
        size = (self._bundle.rows, self._bundle.columns) if self._bundle.terminal else None
        container_id = self._container.container_id
        mounts = shared_mounts(self._directory, container_id)
        setup = guest_mounts.setup_of(container_id, mounts, self._config, owns_pod=self._container.owns_pod)
        kind, payload = create_request(container_id, guest_bundle(container_id), size, setup)
        own = SandboxPaths(os.path.join(self._session.root, container_id))
        request = ShimRequest(
            self._directory, self._container.sandbox_id, kind, payload.decode(), follow, self._request.console_socket,
            *(size or (0, 0)), reason_log=self._request.reason_log, status_file=own.exit_status, view=self._view(),
        )  # fmt: skip
        return shim.start(request, record)

    def _view(self) -> View:
        def path(share: str) -> str:
            return shared_path(self._directory, self._container.container_id, share)

        points = [(point.destination, path(point.share) if point.share else "") for point in self._config.mount_points]
        return View(path(ROOT), self._bundle.read_only, points)

    def _forget_in_guest(self) -> None:
        with suppress(KataError):  # if the VM has ended, so has the container
            guest_mounts.forget_container(
                FreePort(self._directory, self._container.sandbox_id), self._container.container_id
            )
