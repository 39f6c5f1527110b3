"""What a guest's console and QEMU print is kept, up to a size, by a program that blocks nobody."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kata_runtime.sandbox import output_log
from kata_runtime.sandbox.output_log import FILE_BYTES, KEPT_BYTES, CappedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 30


class _Keeper:
    """The program with the ends that QEMU and ``run`` have otherwise; a cat plays QEMU."""

    def __init__(self, directory: Path) -> None:
        self.files = {name: directory / name for name in ("console.log", "qemu.log")}
        opened = [os.open(path, os.O_RDWR | os.O_CREAT) for path in self.files.values()]
        console, self.console = socket.socketpair()
        output, self.output = os.pipe()
        guard, self.guard = os.pipe()
        self.qemu = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
        pidfd = os.pidfd_open(self.qemu.pid)
        given = [console.fileno(), opened[0], output, opened[1], pidfd, guard]
        script = Path(output_log.__file__)
        argv = [sys.executable, "-I", "-S", str(script), "guest=x", *map(str, given)]
        self.process = subprocess.Popen(argv, pass_fds=given, stderr=subprocess.PIPE)
        console.close()
        for fd in (*opened, output, pidfd, guard):
            os.close(fd)

    def end_qemu(self) -> None:
        """What QEMU's end does."""
        self.console.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1
        self.qemu.kill()
        self.qemu.communicate()

    def texts(self) -> list[bytes]:
        """What is kept of console and output, once the program has ended."""
        assert self.process.wait(_SECONDS) == 0
        return [path.read_bytes() for path in self.files.values()]

    def close(self) -> None:
        """End and close everything."""
        self.end_qemu()
        if self.guard >= 0:
            os.close(self.guard)
        self.process.kill()
        self.process.communicate()


@contextmanager
def _keeper(directory: Path) -> Iterator[_Keeper]:
    made = _Keeper(directory)
    try:
        yield made
    finally:
        made.close()


def test_everything_is_kept_to_the_end(tmp_path: Path) -> None:
    """Both outputs are kept, the last words before QEMU's end included, and then the program ends by itself."""
    with _keeper(tmp_path) as keeper:
        os.write(keeper.guard, b"1")
        keeper.console.sendall(b"console\r\n")
        os.write(keeper.output, b"qemu\n")
        keeper.console.sendall(b"last" * 10_000)
        keeper.end_qemu()
        assert keeper.texts() == [b"console\r\n" + b"last" * 10_000, b"qemu\n"]


def test_a_guest_that_prints_for_ever(tmp_path: Path) -> None:
    """After 40 MB the file holds the last of it and never grew beyond its limit, nor did the program's memory."""
    with _keeper(tmp_path) as keeper:
        os.write(keeper.guard, b"1")
        sizes = set()
        for number in range(40):
            keeper.console.sendall(b"%07d\n" % number * (1_000_000 // 8))
            sizes.add(keeper.files["console.log"].stat().st_size)
        keeper.console.sendall(b"the end\n")
        status = Path(f"/proc/{keeper.process.pid}/status").read_text()
        keeper.end_qemu()
        console, _ = keeper.texts()
    assert max(sizes) <= FILE_BYTES
    assert KEPT_BYTES <= len(console) <= FILE_BYTES
    assert console == (b"%07d\n" % 39 * FILE_BYTES)[: len(console) - 8] + b"the end\n"
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert peak < 20_000


def test_a_console_that_closes_does_not_end_it(tmp_path: Path) -> None:
    """When only one of the two outputs ends, the other is kept on."""
    with _keeper(tmp_path) as keeper:
        os.write(keeper.guard, b"1")
        keeper.console.close()
        os.write(keeper.output, b"qemu\n")
        keeper.end_qemu()
        assert keeper.texts() == [b"", b"qemu\n"]


@pytest.mark.parametrize(("said", "status"), [(b"", -9), (b"1", 0)])
def test_a_start_that_was_killed_takes_qemu_along(said: bytes, status: int, tmp_path: Path) -> None:
    """When the start ends without reporting that the guest is up, QEMU is killed; otherwise it keeps running."""
    with _keeper(tmp_path) as keeper:
        if said:
            os.write(keeper.guard, said)
        os.close(keeper.guard)
        keeper.guard = -1
        if said:
            os.write(keeper.output, b"on\n")
            assert keeper.qemu.stdin is not None
            keeper.qemu.stdin.close()
        assert keeper.qemu.wait(_SECONDS) == status
        assert keeper.process.wait(_SECONDS) == 0


def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path) -> None:
    """What cannot be written is lost; later output is kept again."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    full = os.open("/dev/full", os.O_RDWR)
    keeping = os.dup(fd)
    file = CappedFile(fd)
    os.dup2(full, fd)
    file.add(b"a" * 100)
    os.dup2(keeping, fd)
    file.add(b"b" * 10)
    for each in (fd, full, keeping):
        os.close(each)
    assert path.read_bytes() == b"b" * 10


def test_the_file_is_begun_anew_with_what_is_kept(tmp_path: Path) -> None:
    """The file never exceeds its limit, and always ends with the last that was added."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    file = CappedFile(fd)
    added = b""
    sizes = []
    for number in range(100):
        data = bytes([number]) * 5000
        added += data
        file.add(data)
        sizes.append(path.stat().st_size)
        assert added.endswith(path.read_bytes())
    os.close(fd)
    assert (max(sizes) <= FILE_BYTES, min(sizes[30:]) >= KEPT_BYTES) == (True, True)
