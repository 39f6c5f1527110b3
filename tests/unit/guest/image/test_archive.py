"""The initramfs writer: exact bytes, and what cpio(1)'s reader in the kernel relies on."""

from __future__ import annotations

import io
import random

from kata_runtime.guest.image.archive import Node, console_device, regular_file, symbolic_link, write_archive


def _written(nodes: dict[str, Node]) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, nodes)
    return stream.getvalue()


def _header(*fields: int) -> bytes:
    return b"070701" + b"".join(b"%08X" % field for field in fields)


def test_archive_is_exact() -> None:
    """A file in a directory, a link and the console become these bytes, aligned to 4, closed by the trailer."""
    nodes = {"d/f": regular_file(b"hello", 0o755), "l": symbolic_link("d/f"), "c": console_device()}
    assert _written(nodes) == b"".join([
        _header(1, 0o020600, 0, 0, 1, 0, 0, 0, 0, 5, 1, 2, 0), b"c\0",
        _header(2, 0o040755, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2, 0), b"d\0",
        _header(3, 0o100755, 0, 0, 1, 0, 5, 0, 0, 0, 0, 4, 0), b"d/f\0\0\0", b"hello\0\0\0",
        _header(4, 0o120777, 0, 0, 1, 0, 3, 0, 0, 0, 0, 2, 0), b"l\0", b"d/f\0",
        _header(0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0), b"TRAILER!!!\0\0\0\0",
    ])  # fmt: skip


def test_order_of_input_does_not_matter() -> None:
    """The same files in another order give the same bytes."""
    names = [f"{first}/{second}" for first in "abc" for second in "xyz"]
    shuffled = random.Random(1).sample(names, len(names))
    assert _written({name: regular_file(name.encode()) for name in names}) == _written(
        {name: regular_file(name.encode()) for name in shuffled}
    )
