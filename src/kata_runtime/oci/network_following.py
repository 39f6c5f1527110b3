"""Mirrors changes of a pod's network namespace into the VM, from within its first shim."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError
from kata_runtime.fast_contextlib import suppress
from kata_runtime.network.namespace import Namespace
from kata_runtime.network.namespace_follower import Follower
from kata_runtime.recovery import recover
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.session import open_session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.sandbox.stream_relay import Relay

_LOG_BYTES = 64 * 1024


def add_to_log(directory: str, note: str) -> None:
    """Add a line to a sandbox's network log, unless the disk is full or the sandbox is being deleted.

    The log begins anew when it is large, since it is in the host's memory and a container can run for years.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with suppress(OSError):
        log = os.open(SandboxPaths(directory).network_log, flags, 0o600)
        with os.fdopen(log, "w", encoding="utf-8", errors="backslashreplace") as file:
            if os.fstat(log).st_size > _LOG_BYTES:
                os.ftruncate(log, 0)
            file.write(f"{note}\n")


def follow(relay: Relay, path: str, directory: str) -> None:
    """Mirror changes of the namespace at ``path`` into the sandbox in ``directory``, in the loop of ``relay``.

    Errors are written to the sandbox's network log.
    """
    root, sandbox_id = os.path.split(directory)

    def notify(note: str) -> None:
        add_to_log(directory, note)

    def ready() -> None:
        try:
            follower.ready()
        except HostError as error:
            relay.forget(follower.fileno())
            notify(str(error))

    try:
        follower = Follower(Namespace(path), lambda: open_session(root, sandbox_id, recover), notify)
    except HostError as error:
        notify(str(error))
        return
    relay.watch(follower.fileno(), ready)
