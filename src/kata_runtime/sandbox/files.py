"""Files that are replaced whole, and survive a crash of the host."""

from __future__ import annotations

import os

from kata_runtime.fast_contextlib import suppress


def replace_durably(path: str, content: bytes) -> None:
    """Make ``content`` what is in the file ``path`` (mode 0600), in one step.

    :raise OSError: the file system refused. The previous content is there, or, when it could not even say that the
        new one is safe, the new one.
    """
    temporary = f"{path}.new"
    try:
        _write(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        # On a full disk what was written of it would stay in others' way.
        with suppress(OSError):
            os.unlink(temporary)
        raise
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _write(path: str, content: bytes) -> None:
    written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = memoryview(content)
        while data:
            data = data[os.write(written, data) :]
        os.fsync(written)
    finally:
        os.close(written)
