"""Guest memory as a memfd that QEMU maps: creating it, storing it in a template, loading it from one.

Only non-empty pages are copied, so that template and new guest occupy only what the template's guest has written.
"""

from __future__ import annotations

import errno
import fcntl
import os

from kata_runtime.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE_BYTES = 4096
_EMPTY_PAGE = bytes(_PAGE_BYTES)
_CHUNK_BYTES = 1024 * 1024

# Seals (include/uapi/linux/fcntl.h): holders of the descriptor, such as vhost-user back ends, cannot resize the file.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_memory(size: int) -> int:
    """Create ``size`` bytes of memory (memfd_create(2)), none of which is allocated yet; returns the descriptor.

    :raise HostError: the kernel refused.
    """
    try:
        memory = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, size)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        except OSError:
            os.close(memory)
            raise
    except OSError as error:
        raise HostError.of(f"cannot make {size >> 20} MiB of guest memory", error) from error
    return memory


def store_memory(memory: int, file: int) -> None:
    """Write the non-empty pages of ``memory`` to the same offsets of ``file``, which gets the same length.

    :raise OSError: the file system refused.
    """
    os.ftruncate(file, os.fstat(memory).st_size)
    for place, data in occupied_pages(memory):
        _write_at(file, data, place)


def load_memory(file: int, memory: int) -> None:
    """Copy the pages that ``store_memory`` wrote to the same offsets of new ``memory``.

    :raise OSError: the file cannot be read, or no memory is left.
    """
    for start, end in _occupied(file):
        os.lseek(memory, start, os.SEEK_SET)
        place = start
        while place < end:
            copied = os.sendfile(memory, file, place, end - place)
            if not copied:
                raise OSError(f"the template ends at byte {place}")
            place += copied


def occupied_pages(file: int) -> Iterator[tuple[int, memoryview]]:
    """The non-empty pages of a file in runs of at most 1 MiB, each with its offset.

    :raise OSError: the file cannot be read.
    """
    following = 0
    for start, end in _occupied(file):
        # Read in aligned chunks, so that the runs do not depend on where a file system's holes begin.
        for place in range(max(start - start % _CHUNK_BYTES, following), end, _CHUNK_BYTES):
            data = memoryview(os.pread(file, _CHUNK_BYTES, place))
            following = place + _CHUNK_BYTES
            for first, last in _filled(data):
                yield place + first, data[first:last]


def _occupied(file: int) -> Iterator[tuple[int, int]]:
    """The ranges of the file that contain data (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    size = os.fstat(file).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: there is no data up to the end.
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _filled(data: memoryview) -> Iterator[tuple[int, int]]:
    """The runs of pages of ``data`` that are not all zeros."""
    first = -1
    for place in range(0, len(data), _PAGE_BYTES):
        page = data[place : place + _PAGE_BYTES]
        if page == _EMPTY_PAGE[: len(page)]:
            if first >= 0:
                yield first, place
            first = -1
        elif first < 0:
            first = place
    if first >= 0:
        yield first, len(data)


def _write_at(file: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written
