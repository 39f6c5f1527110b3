"""Container IDs: checking them, resolving prefixes, and the user that a sandbox's QEMU runs as."""

from __future__ import annotations

import os
import stat

from kata_runtime.errors import ContainerError, HostError, InputError
from kata_runtime.sandbox.paths import SandboxPaths

_ID_LENGTH = 64  # hexadecimal digits, as container engines generate them
_ID_MAX = 128
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_+.-")

# A range that neither systemd nor container engines assign (systemd's "Users, Groups, UIDs and GIDs").
_USER_BASE = 0x70000000
_USER_COUNT = 0x0F000000
NOBODY = 65534


def new_id() -> str:
    """Generate a random ID."""
    return os.urandom(_ID_LENGTH // 2).hex()


def check_id(text: str) -> str:
    """Check that ``text`` is a valid container ID, and return it.

    :raise InputError: it is not.
    """
    if text and len(text) <= _ID_MAX and text[0] in _FIRST and _REST.issuperset(text):
        return text
    raise InputError(
        f"container ID {_shown(text)} is not possible",
        hint=f"1 to {_ID_MAX} characters of A-Z a-z 0-9 _ + . - are, the first a letter or digit",
    )


def check_root(root: str) -> None:
    """Refuse a directory to which other users can write: processes and files that records name are killed and removed.

    :raise HostError: ``root`` is another user's, or others may write to it, or it is no directory.
    """
    try:
        found = os.stat(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError.of(f"cannot read {root}", error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise HostError(f"{root} is no directory", hint="give another --root")
    if found.st_uid != os.geteuid():
        raise HostError(
            f"{root} belongs to user {found.st_uid}, who could put false records there", hint="give another --root"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(
            f"{root} has mode {stat.S_IMODE(found.st_mode):04o}: others could put false records there",
            hint=f"chmod 0700 {root}, or give another --root",
        )


def sandbox_ids(root: str) -> list[str]:
    """The IDs of all sandboxes below ``root``, sorted.

    :raise HostError: the directory cannot be read, or is not to be trusted.
    """
    check_root(root)
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError.of(f"cannot read {root}", error) from error


def resolve(root: str, text: str) -> str:
    """The ID that is ``text``, or that begins with it unambiguously.

    :raise ContainerError: there is none, or there are several.
    :raise HostError: the directory cannot be read, or is not to be trusted.
    """
    ids = sandbox_ids(root)
    if text in ids:
        return text
    matching = [candidate for candidate in ids if text and candidate.startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise ContainerError(
            f"container {_shown(text)} does not exist",
            container=text,
            hint="'kata-runtime list' shows those that do",
        )
    shown = ", ".join(matching[:3]) + (", ..." if len(matching) > 3 else "")
    raise ContainerError(
        f"container {_shown(text)} is ambiguous: it could be {shown}",
        container=text,
        hint="give more of the ID",
    )


def user_of(directory: str) -> int:
    """The unprivileged user and group that the QEMU of a sandbox runs as; each sandbox has its own."""
    from kata_runtime.fast_hashlib import sha256

    user = _USER_BASE + int.from_bytes(sha256(directory.encode()).digest()[:4], "big") % _USER_COUNT
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        ranges = [(int(inside), int(count)) for inside, _, count in map(str.split, lines)]
    # In a user namespace there may be too few users for one each.
    return user if any(first <= user < first + count for first, count in ranges) else NOBODY


def sandbox_of(root: str, full_id: str) -> str:
    """The ID of the sandbox in which a container runs: that of its pod's first container, which can be itself."""
    try:
        return os.path.basename(os.readlink(SandboxPaths(os.path.join(root, full_id)).sandbox_link))
    except OSError:
        return full_id


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _ID_MAX else f"{text[:_ID_MAX]}...")
