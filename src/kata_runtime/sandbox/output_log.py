"""A program that logs the latest output of a guest's console and of QEMU to files of bounded size.

``boot`` runs it as the sandbox's user, with ``python3 -I -S`` and nothing of this package, for the life of QEMU. It
reads the console all the time, as QEMU would block the guest otherwise. Rejected: QEMU's ring buffer (``-chardev
ringbuf``) is lost when QEMU ends, as after a panic; ``logfile=`` and a plain file grow without bound.

It also kills QEMU if the command that starts it is killed before the guest is up: no record might name that QEMU.
"""

from __future__ import annotations

import os
import select
import signal
import sys

KEPT_BYTES = 64 * 1024
# At this size the file is rewritten with the bytes to keep: so each byte is written twice on average.
FILE_BYTES = 2 * KEPT_BYTES
_READ_BYTES = 16 * 1024
_KILL_MILLISECONDS = 20
_READY = b"1"


class CappedFile:
    """A file of bounded size with the bytes that were added last."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Append ``data``; what does not fit on a full disk is lost."""
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
    """Copy each source to its file until ``process``, a pidfd, has ended and all its output is written.

    If ``guard`` is closed without a byte having been sent, the process is killed.
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
    """Copy the available bytes; False at the end of the source, and with ``once`` also if there are none now."""
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return not once
    except OSError:
        return False  # QEMU closed its end with unread bytes from this process
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
            # EPERM: it has not executed QEMU yet and still runs as another user.
            pass
        if poller.poll(_KILL_MILLISECONDS):
            return


def main(argv: list[str]) -> None:
    """Run with these descriptors: the console and its file, QEMU's output and its file, QEMU's pidfd, the guard."""
    console, console_file, output, output_file, process, guard = map(int, argv)
    keep({console: CappedFile(console_file), output: CappedFile(output_file)}, process, guard)


if __name__ == "__main__":
    main(sys.argv[2:])
