"""vhost-user back ends, looked at before QEMU is (QEMU: docs/interop/vhost-user.rst)."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING

from kata_runtime import unix_socket
from kata_runtime.errors import DeadlineError, HostError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 3.0
_PATH_BYTES_MAX = 107  # unix(7): QEMU connects by the path itself
_HEADER = struct.Struct("<III")  # request, flags, size
_VERSION = 1
_REPLY = 4
_GET_FEATURES = 1
_GET_PROTOCOL_FEATURES = 15
_GET_QUEUE_NUM = 17
_PROTOCOL_FEATURES = 1 << 30  # VHOST_USER_F_PROTOCOL_FEATURES
_MULTI_QUEUE = 1 << 0  # VHOST_USER_PROTOCOL_F_MQ


def refusal(
    *, version: tuple[int, int, int], accelerator: str, kernel_parameters: str, shared_memory: bool
) -> str | None:
    """Why a running machine cannot have a vhost-user NIC, and what would help; None when it can."""
    if not shared_memory:
        return "its memory is not shared; start it with shared_memory = true in the configuration"
    # Up to 7.2 at least: msix_set_vector_notifiers below vhost_net_start, SIGSEGV.
    if accelerator == "tcg" and version < (8, 0, 0) and "pci=nomsi" not in kernel_parameters.split():
        return (
            f"QEMU {'.'.join(map(str, version))} without KVM would crash when a guest with MSI starts it; start it "
            'with kernel_params = "pci=nomsi" in the configuration, or use QEMU 8.0 or newer'
        )
    return None


def examine(path: str, queues: int) -> None:
    """Make sure that a back end listens at ``path`` and has ``queues`` queue pairs.

    QEMU waits for a silent back end with the whole machine stopped, so it is asked here first.

    :raise InputError: nothing of the kind is there. :raise HostError, DeadlineError: it does not answer properly.
    """
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise InputError(
            f"vhostUserSocket has {len(os.fsencode(path))} bytes: a Unix socket's path has at most {_PATH_BYTES_MAX}",
            field="vhostUserSocket",
        )
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise InputError(f"{path!a} is no socket", field="vhostUserSocket")
        opened = unix_socket.connect(path, _SECONDS)
    except FileNotFoundError:
        raise InputError(
            f"there is no socket {path!a}", field="vhostUserSocket", hint="start the back end first"
        ) from None
    except ConnectionRefusedError:
        raise InputError(
            f"nobody listens at {path!a}", field="vhostUserSocket", hint="start the back end first"
        ) from None
    except OSError as error:
        raise HostError(f"cannot connect to {path!a}: {error.strerror}", errno=error.errno or 0) from error
    with opened:
        try:
            available = _queue_pairs(opened.sendall, opened.recv)
        except TimeoutError:
            raise DeadlineError(f"an answer of the back end at {path!a}", _SECONDS) from None
        except (OSError, EOFError, struct.error) as error:
            raise HostError(f"the back end at {path!a} does not speak vhost-user") from error
    if queues > available:
        raise InputError(f"the back end at {path!a} has {available} queue pairs, not {queues}", field="queues")


def _queue_pairs(send: Callable[[bytes], None], receive: Callable[[int], bytes]) -> int:
    def ask(request: int) -> int:
        send(_HEADER.pack(request, _VERSION, 0))
        answered, flags, size = _HEADER.unpack(_exactly(receive, _HEADER.size))
        if answered != request or not flags & _REPLY or size != 8:
            raise EOFError
        return int.from_bytes(_exactly(receive, 8), "little")

    if not ask(_GET_FEATURES) & _PROTOCOL_FEATURES:
        return 1
    return ask(_GET_QUEUE_NUM) if ask(_GET_PROTOCOL_FEATURES) & _MULTI_QUEUE else 1


def _exactly(receive: Callable[[int], bytes], count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = receive(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
