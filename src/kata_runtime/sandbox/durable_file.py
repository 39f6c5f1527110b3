"""Files that are replaced whole, in one step that survives a crash of the host."""

from __future__ import annotations

import os

from kata_runtime.errors import HostError


def replace_file(path: str, data: bytes) -> None:
    """Let ``path`` hold ``data``, or what it held before.

    :raise HostError: the file system refused.
    """
    temporary = f"{path}.new"
    try:
        written = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(written, left) :]
            os.fsync(written)
        finally:
            os.close(written)
        os.replace(temporary, path)
        parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", errno=error.errno or 0) from error
