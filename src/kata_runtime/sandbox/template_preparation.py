"""What a guest does before its VM is saved as a template, so that no sandbox that starts from it has to do it again."""

from __future__ import annotations

import time

from kata_runtime import fast_json
from kata_runtime.guest import wire
from kata_runtime.guest.channel import AgentChannel
from kata_runtime.guest.crun import create_request
from kata_runtime.guest.host_port import GuestPort
from kata_runtime.guest.image import MODULES_SCRIPT
from kata_runtime.sandbox.paths import RUNTIME_EXEC_PORT, SandboxPaths

# Half a second on an idle host without KVM.
_MODULES_SECONDS = 30.0
_CONTAINER_SECONDS = 30.0
_CONTAINER = "template"
_BUNDLE = "/run/kata-template"
_MAKE_BUNDLE = 'mkdir -p "$1/rootfs" && cat > "$1/config.json"'
_REMOVE = 'crun delete --force "$2"; rm -r "$1"'
_CONFIG = {
    "ociVersion": "1.0.2",
    "process": {
        "cwd": "/",
        "args": ["/usr/bin/busybox", "true"],
        "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    ],
    "linux": {
        "cgroupsPath": f"/{_CONTAINER}",
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "cgroup")],
        "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}, "devices": [{"allow": False}]},
    },
}


def prepare_guest(directory: str) -> None:
    """Wait for the guest's modules, and let it create a container and delete it.

    :raise GuestError, DeadlineError, ProtocolError: the guest failed; that it cannot create a container is no failure.
    """
    paths = SandboxPaths(directory)
    channel = AgentChannel(paths.control, paths.exec_socket(RUNTIME_EXEC_PORT))
    try:
        # The guest's init runs it, too, beside the agent. The kernel lets modprobe wait for a module that another
        # process is loading. The exit status does not matter: a kernel of the user's own may lack some of them.
        channel.run([MODULES_SCRIPT], seconds=_MODULES_SECONDS)
        channel.run(["sh", "-c", _MAKE_BUNDLE, "sh", _BUNDLE], fast_json.dumps(_CONFIG).encode())
        _create_container(paths.exec_socket(RUNTIME_EXEC_PORT))
        channel.run(["sh", "-c", _REMOVE, "sh", _BUNDLE, _CONTAINER])
    finally:
        channel.close()


def _create_container(path: str) -> None:
    """Create a container, which never starts: the agent kills it when the port is closed.

    The agent has then imported what it needs for containers, and the kernel has control groups with their controllers.
    """
    request = create_request(_CONTAINER, _BUNDLE, None)
    with GuestPort(path) as port:
        port.send(request.kind, 1, request.payload)
        deadline = time.monotonic() + _CONTAINER_SECONDS
        kind = 0
        while kind not in (wire.STARTED, wire.DONE):
            kind, _, _ = port.receive(deadline, _CONTAINER_SECONDS, "a container in the guest")
