"""A program of its own: keeps the last of what a guest's console and QEMU print, in files that never grow large.

Run by ``boot`` as the sandbox's user, with ``python3 -I -S`` and nothing of this package, for the life of QEMU. The
console is read all the time, or QEMU would make the guest wait. Rejected: QEMU's ring buffer (``-chardev ringbuf``) is
gone with QEMU, and so with every panic; its ``logfile=`` and a plain file grow as the guest likes.

It also ends QEMU when the command that starts it is killed before the guest was up: nobody would know of that machine.
"""

from __future__ import annotations

import os
import select
import signal
import sys

KEPT_BYTES = 64 * 1024
# The file is begun anew with what is kept when it would grow beyond this: each byte is written twice on average.
FILE_BYTES = 2 * KEPT_BYTES
_READ_BYTES = 16 * 1024
_KILL_MILLISECONDS = 20
_READY = b"1"


class CappedFile:
    """A file that holds the last of what was added."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Keep ``data``; what a full disk does not take is lost."""
        self._kept += data
        del self._kept[:-KEPT_BYTES]
        try:
            if self._size + len(data) > FILE_BYTES:
                self._size = os.pwrite(self._fd, self._kept, 0)
                os.ftruncate(self._fd, self._size)
            else:
                self._size += os.pwrite(self._fd, data, self._size)
        except OSError:
            return


def keep(sources: dict[int, CappedFile], process: int, guard: int) -> None:
    """Copy each source to its file until ``process``, a pidfd, has ended and all it wrote is kept.

    When ``guard`` ends without a byte the process is killed.
    """
    for fd in sources:
        os.set_blocking(fd, False)
    poller = select.poll()
    for fd in (*sources, process, guard):
        poller.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        for fd in ready & sources.keys():
            if not _copy(fd, sources[fd]):
                poller.unregister(fd)
        if process in ready:
            for fd, file in sources.items():
                while _copy(fd, file, once=True):
                    continue
            return
        if guard in ready:
            poller.unregister(guard)
            if os.read(guard, 1) != _READY:
                _kill(process)


def _copy(fd: int, file: CappedFile, *, once: bool = False) -> bool:
    """Take what is there; False at the end, and with ``once`` also when there is nothing now."""
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return not once
    except OSError:
        return False  # QEMU closed its console with bytes of ours unread
    file.add(data)
    return bool(data)


def _kill(process: int) -> None:
    poller = select.poll()
    poller.register(process, select.POLLIN)
    while True:
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:
            # It is still about to become QEMU and has another user's rights.
            pass
        if poller.poll(_KILL_MILLISECONDS):
            return


def main(argv: list[str]) -> None:
    """Descriptors: the console and its file, QEMU's output and its file, QEMU's pidfd, the guard."""
    console, console_file, output, output_file, process, guard = map(int, argv)
    keep({console: CappedFile(console_file), output: CappedFile(output_file)}, process, guard)


if __name__ == "__main__":
    main(sys.argv[2:])
