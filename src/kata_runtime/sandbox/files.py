"""Atomic replacement of files.

The state that these files record (processes, interfaces, a running guest) does not survive a crash of the host. So
after a crash a file must be complete, but may be the previous version: the directory is not synchronised, which would
double the time.
"""

from __future__ import annotations

import errno
import os

from kata_runtime.fast_contextlib import suppress

# Commands that find a directory while it is removed last milliseconds, and later ones do not find it.
_REMOVALS = 100


def replace_whole(path: str, content: bytes, *, mode: int = 0o600, suffix: str = ".new") -> None:
    """Replace the content of the file ``path`` atomically, by a file with ``suffix`` that is renamed.

    :raise OSError: the file system refused; the file is unchanged.
    """
    temporary = f"{path}{suffix}"
    try:
        _write(temporary, content, mode)
        os.replace(temporary, path)
    except BaseException:
        # Otherwise the partial file would occupy space on a full disk.
        with suppress(OSError):
            os.unlink(temporary)
        raise


def remove_tree(directory: str, last: str = "") -> None:
    """Remove a directory and everything in it, in which only this program writes; links are removed, not followed.

    The file ``last`` is removed last. Commands that still find the directory may make files anew, such as its lock:
    these are removed, too.

    Unlike ``shutil``, whose import takes longer than most commands.

    :raise OSError: it does not exist, or something in it cannot be removed.
    """
    for tried in range(1, _REMOVALS + 1):
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name == last):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or tried == _REMOVALS:
                raise
        else:
            return


def _write(path: str, content: bytes, mode: int) -> None:
    written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        data = memoryview(content)
        while data:
            data = data[os.write(written, data) :]
        os.fsync(written)
    finally:
        os.close(written)
