"""Guest memory: only pages with something in them are copied, to where they were."""

from __future__ import annotations

import fcntl
import os
import resource
from typing import TYPE_CHECKING

import pytest

from kata_runtime.errors import HostError
from kata_runtime.sandbox.guest_memory import create_memory, load_memory, occupied_pages, store_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MIB = 1024 * 1024
_PAGE = 4096


@pytest.fixture
def memory() -> Iterator[int]:
    """8 MiB of guest memory."""
    made = create_memory(8 * _MIB)
    yield made
    os.close(made)


def test_what_was_stored_comes_back(memory: int, tmp_path: Path) -> None:
    """Memory with data at its ends, across a chunk's border and in single pages is the same after store and load."""
    for place, data in ((0, b"first"), (_MIB - 3, b"border"), (5 * _MIB + 7 * _PAGE, b"page"), (8 * _MIB - 4, b"last")):
        os.pwrite(memory, data, place)
    os.pwrite(memory, bytes(_MIB), 3 * _MIB)  # written, but empty
    file = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    loaded = create_memory(8 * _MIB)
    try:
        store_memory(memory, file)
        load_memory(file, loaded)
        assert os.pread(loaded, 8 * _MIB, 0) == os.pread(memory, 8 * _MIB, 0)
        assert (os.fstat(file).st_size, os.fstat(file).st_blocks * 512) == (8 * _MIB, 5 * _PAGE)
        # The loaded memory takes up no page that held nothing.
        assert os.fstat(loaded).st_blocks * 512 == 5 * _PAGE
    finally:
        os.close(file)
        os.close(loaded)


def test_runs_do_not_depend_on_holes(memory: int, tmp_path: Path) -> None:
    """A file without holes has the same runs of pages as one with them, so that its digest is the same."""
    os.pwrite(memory, b"a", 2 * _MIB - 1)
    os.pwrite(memory, b"b", 2 * _MIB)
    full = os.open(tmp_path / "full", os.O_RDWR | os.O_CREAT)
    try:
        os.write(full, os.pread(memory, 8 * _MIB, 0))
        runs = [(place, bytes(data)) for place, data in occupied_pages(memory)]
        assert runs == [(place, bytes(data)) for place, data in occupied_pages(full)]
        assert [(place, len(data)) for place, data in runs] == [(2 * _MIB - _PAGE, _PAGE), (2 * _MIB, _PAGE)]
    finally:
        os.close(full)


def test_size_is_sealed(memory: int) -> None:
    """Whoever gets the descriptor cannot shrink the memory under its guest, or grow it."""
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)


def test_no_descriptor_left() -> None:
    """A host that gives no more descriptors is one clear error."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(HostError) as caught:
            create_memory(64 * _MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert str(caught.value) == "cannot make 64 MiB of guest memory: Too many open files"
