"""Installs a built image at its destination: atomically, durably, and replacing nothing but an image."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kata_runtime.c_library import c_function
from kata_runtime.errors import ConflictError, HostError
from kata_runtime.guest.image import DESCRIPTION_NAME, INITRD_NAME, KERNEL_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NAMES = frozenset({KERNEL_NAME, INITRD_NAME, DESCRIPTION_NAME})
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_SCRATCH_MODE = 0o700
_FRESH = "new"
# A larger file was not made by a build; it need not be read to know that.
_LARGEST_FILE_BYTES = 1 << 30

# include/uapi/linux/fcntl.h and include/uapi/linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def prepare(destination: Path) -> None:
    """Refuse a destination that must not be replaced, and remove what killed builds left beside it.

    :raise ConflictError: it holds something other than an image.
    :raise OSError: the file system refused.
    """
    real = os.path.realpath(destination)
    _check_replaceable(real)
    _clear_stale(real)


def install(destination: Path, contents: Mapping[str, bytes]) -> None:
    """Make ``contents``, the files of an image with its description, the directory ``destination``.

    An image that is there is exchanged with the new one in one system call, then removed: at any moment there is
    one whole image, also after a signal or a crash of the host, and of two builds at the same time the later stays.

    :raise ConflictError: something other than an image is there.
    :raise HostError: an image is there and the file system cannot exchange directories. Two renames could, but
        between them there is no image.
    :raise OSError: the file system refused.
    """
    real = os.path.realpath(destination)
    _make_directories(os.path.dirname(real))
    _clear_stale(real)
    with _scratch(real) as scratch:
        fresh = os.path.join(scratch, _FRESH)
        os.mkdir(fresh)
        for name, data in contents.items():
            _write_durably(os.path.join(fresh, name), data)
        os.chmod(fresh, _DIRECTORY_MODE)
        _sync_directory(fresh)
        _sync_directory(scratch)
        _replace(fresh, real)
        _sync_directory(os.path.dirname(real))


def _replace(fresh: str, real: str) -> None:
    """Move ``fresh`` to ``real``; an image that was at ``real`` is at ``fresh`` afterwards."""
    try:
        # rename(2) replaces an empty directory, but no other.
        os.rename(fresh, real)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    _check_replaceable(real)
    _exchange(fresh, real)
    try:
        # Checked again, now that the path is ours alone: a file may have been put there since.
        _check_replaceable(fresh, shown=real)
    except BaseException:
        _exchange(fresh, real)
        raise


def _exchange(one: str, other: str) -> None:
    """Exchange two directories of one file system (rename(2), RENAME_EXCHANGE)."""
    # What Python's own os.rename lacks; glibc has it since 2.28.
    rename = c_function("renameat2")
    try:
        rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
            raise OSError(error.errno, error.strerror, other) from None
        raise HostError(
            f"cannot replace the image {other!r}: its file system does not exchange directories",
            errno=error.errno,
            hint="remove it first, or name another directory",
        ) from error


def _check_replaceable(path: str, shown: str | None = None) -> None:
    """Accept nothing, an empty directory, and an image whose files are byte for byte those that were built."""
    while True:
        try:
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            flaw = "it is no directory"
            break
        try:
            flaw = _flaw(opened)
            if not flaw:
                return
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(opened), os.stat(path, follow_symlinks=False)):
                    break
        finally:
            os.close(opened)
        # Another build replaced and removed what was being looked at: look at what it put there.
    raise ConflictError(
        f"{shown or path!r} is not an image: {flaw}", hint="name a new or empty directory, or an image's own"
    )


def _flaw(directory: int) -> str:
    """What distinguishes a directory from an image; empty when it is one, or empty itself."""
    names = sorted(os.listdir(directory))
    for name in names:
        if name not in _NAMES:
            return f"it holds {name!a}"
    if not names:
        return ""
    description = _content(directory, DESCRIPTION_NAME)
    try:
        built = json.loads(description)["sha256"]
        digests = {name: built[name] for name in (KERNEL_NAME, INITRD_NAME)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{DESCRIPTION_NAME} describes none"
    for name, digest in digests.items():
        if hashlib.sha256(_content(directory, name)).hexdigest() != digest:
            return f"{name} is not as it was built"
    return ""


def _content(directory: int, name: str) -> bytes:
    """The content of a regular file; nothing when it is missing or no regular file."""
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    with open(opened, "rb") as file:
        return file.read(_LARGEST_FILE_BYTES) if stat.S_ISREG(os.fstat(opened).st_mode) else b""


@contextmanager
def _scratch(real: str) -> Iterator[str]:
    """A directory beside ``real`` that is locked while it is in use, so that a later build knows one left behind."""
    path = ""
    locked = None
    try:
        while locked is None:
            path = f"{_scratch_prefix(real)}{secrets.token_hex(8)}"
            os.mkdir(path, _SCRATCH_MODE)
            locked = _lock(path)  # None when another build took it for one left behind and removed it
        yield path
    finally:
        if path:
            with suppress(FileNotFoundError):
                _remove_scratch(path)
        if locked is not None:
            os.close(locked)


def _scratch_prefix(real: str) -> str:
    directory, name = os.path.split(real)
    return os.path.join(directory, f".{name}.build-")


def _lock(path: str) -> int | None:
    """Lock a directory; None when it is gone or another process has it."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(opened), os.stat(path, follow_symlinks=False)):
            kept, opened = opened, -1
            return kept
    except (BlockingIOError, FileNotFoundError):
        return None
    finally:
        if opened >= 0:
            os.close(opened)
    return None


def _clear_stale(real: str) -> None:
    directory, prefix = os.path.split(_scratch_prefix(real))
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(directory, name)
        locked = _lock(path) if name.startswith(prefix) else None
        if locked is not None:
            try:
                # Not a directory that another user made under such a name.
                if os.fstat(locked).st_uid == os.geteuid():
                    _remove_scratch(path)
            finally:
                os.close(locked)


def _remove_scratch(path: str) -> None:
    """Remove a scratch directory with an image or a part of one in it; anything else stays."""
    fresh = os.path.join(path, _FRESH)
    names = []
    with suppress(FileNotFoundError):
        names = os.listdir(fresh)
    if _NAMES.issuperset(names) and {_FRESH}.issuperset(os.listdir(path)):
        for name in names:
            os.unlink(os.path.join(fresh, name))
        with suppress(FileNotFoundError):
            os.rmdir(fresh)
        os.rmdir(path)


def _make_directories(path: str) -> None:
    """Make a directory and those above it that are missing, each entry durable."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directories(parent)
    with suppress(FileExistsError):
        os.mkdir(path, _DIRECTORY_MODE)
    _sync_directory(parent)


def _write_durably(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), _FILE_MODE)
        os.fsync(file.fileno())


def _sync_directory(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
