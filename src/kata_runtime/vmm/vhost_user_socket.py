"""vhost-user back ends, examined before QEMU connects to them (QEMU: docs/interop/vhost-user.rst)."""

from __future__ import annotations

import os
import stat
import struct
import time

from kata_runtime import unix_socket
from kata_runtime.errors import DeadlineError, HostError, InputError
from kata_runtime.fast_contextlib import closing, contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

ANSWER_SECONDS = 3.0

_PATH_BYTES_MAX = 107  # unix(7): QEMU connects by the path itself
_HEADER = struct.Struct("<III")  # request, flags, size
_VERSION = 1
_REPLY = 4
_GET_FEATURES = 1
_GET_PROTOCOL_FEATURES = 15
_GET_QUEUE_NUM = 17
_PROTOCOL_FEATURES = 1 << 30  # VHOST_USER_F_PROTOCOL_FEATURES
_MULTI_QUEUE = 1 << 0  # VHOST_USER_PROTOCOL_F_MQ


class _OtherLanguageError(Exception):
    """The reply is not vhost-user."""


def examine(path: str, queues: int, *, user: int) -> None:
    """Make sure that ``user``, QEMU's, can connect to a back end at ``path`` and that it has ``queues`` queue pairs.

    QEMU waits for a silent back end with the whole machine stopped, so it is asked here first.

    :raise InputError: nothing of the kind is there, or it has fewer queue pairs.
    :raise HostError, DeadlineError: it may not be used, or does not answer properly.
    """
    with closing(_connected(path, user)) as opened:
        try:
            available = _queue_pairs(opened, time.monotonic() + ANSWER_SECONDS)
        except TimeoutError:
            raise DeadlineError(f"an answer of the back end at {path!a}", ANSWER_SECONDS) from None
        except (OSError, _OtherLanguageError) as error:
            raise HostError(f"what listens at {path!a} does not speak vhost-user") from error
    if queues > available:
        raise InputError(
            f"the back end at {path!a} has {available} queue pair{'s' * (available != 1)}, not {queues}",
            field="queues",
            hint="start it with more, or ask for fewer",
        )


def _connected(path: str, user: int) -> socket:
    length = len(os.fsencode(path))
    if length > _PATH_BYTES_MAX:
        raise InputError(
            f"vhostUserSocket has {length} bytes",
            field="vhostUserSocket",
            hint=f"QEMU connects to socket paths of at most {_PATH_BYTES_MAX} bytes; use a shorter one",
        )
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise InputError(
                f"vhostUserSocket {path!a} is no socket",
                field="vhostUserSocket",
                hint="give the one that the back end listens on",
            )
        with _acting_as(user):
            return unix_socket.connect(path, ANSWER_SECONDS)
    except FileNotFoundError:
        reason = f"there is no socket {path!a}"
    except ConnectionRefusedError:
        reason = f"nobody listens at {path!a}"
    except TimeoutError:
        raise DeadlineError(f"a connection to the back end at {path!a}", ANSWER_SECONDS) from None
    except PermissionError as error:
        raise HostError(
            f"QEMU's user {user} may not connect to {path!a}",
            errno=error.errno or 0,
            hint="let others write to the socket and search its directories, for example by the back end's umask",
        ) from error
    except OSError as error:
        raise HostError.of(f"cannot connect to {path!a}", error) from error
    raise InputError(reason, field="vhostUserSocket", hint="start the back end first")


@contextmanager
def _acting_as(user: int) -> Iterator[None]:
    """Let the kernel check file access as ``user`` while the context lasts, since root could open anything."""
    if os.geteuid() != 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    try:
        # A signal may end any of these calls: what follows then must not run as the user.
        os.setgroups([])
        os.setegid(user)
        os.seteuid(user)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _queue_pairs(opened: socket, end: float) -> int:
    if not _ask(opened, _GET_FEATURES, end) & _PROTOCOL_FEATURES:
        return 1
    if not _ask(opened, _GET_PROTOCOL_FEATURES, end) & _MULTI_QUEUE:
        return 1
    return _ask(opened, _GET_QUEUE_NUM, end)


def _ask(opened: socket, request: int, end: float) -> int:
    opened.sendall(_HEADER.pack(request, _VERSION, 0))
    answered, flags, size = _HEADER.unpack(_exactly(opened, _HEADER.size, end))
    if (answered, flags & _REPLY, size) != (request, _REPLY, 8):
        raise _OtherLanguageError
    return int.from_bytes(_exactly(opened, 8, end), "little")


def _exactly(opened: socket, count: int, end: float) -> bytes:
    data = b""
    while len(data) < count:
        remaining = end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        opened.settimeout(remaining)
        part = opened.recv(count - len(data))
        if not part:
            raise _OtherLanguageError
        data += part
    return data
