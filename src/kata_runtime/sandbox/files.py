"""Files that are replaced whole.

What they record, processes and interfaces and a running guest, ends with the host. So after a crash of the host the
file must be whole, but may be the previous one as well as the new: the directory is not synchronised, which would take
as long again as synchronising the content.
"""

from __future__ import annotations

import os

from kata_runtime.fast_contextlib import suppress


def replace_whole(path: str, content: bytes) -> None:
    """Make ``content`` what is in the file ``path`` (mode 0600), in one step.

    :raise OSError: the file system refused; the previous content is there.
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


def _write(path: str, content: bytes) -> None:
    written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = memoryview(content)
        while data:
            data = data[os.write(written, data) :]
        os.fsync(written)
    finally:
        os.close(written)
