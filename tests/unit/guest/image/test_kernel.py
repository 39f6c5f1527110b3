"""Kernels are unpacked only where QEMU can boot what comes out."""

from __future__ import annotations

import lzma
import struct

import pytest

from kata_runtime.errors import ProtocolError
from kata_runtime.guest.image import elf, lz4
from kata_runtime.guest.image.kernel import unpack_kernel
from kata_runtime.guest.image.packages import run_program

_NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0"
_KERNEL = elf.MAGIC + b"code" + _NOTE


def _block(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _stored(data: bytes) -> bytes:
    """Return ``data`` of 15 to 269 bytes as one LZ4 block of literals."""
    return _block(bytes([0xF0, len(data) - 15]) + data)


def _boot_image(payload: bytes) -> bytes:
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    header[0x248:0x250] = struct.pack("<II", 0, len(payload))
    return bytes(header) + payload


def test_lz4_literals_matches_and_overlap() -> None:
    """Literals, a match that overlaps its own output, and the size behind the last block are read right."""
    data = _block(b"\x32abc\x03\x00" + b"\x1f!\x01\x00\x05" + b"\x10.")
    assert lz4.decompress(lz4.MAGIC + data + struct.pack("<I", 35)) == b"abcabcabc" + b"!" * 25 + b"."


@pytest.mark.parametrize("block", [b"\x10a\x02\x00", b"\x10a\x00\x00", b"\x1fa\x01\x00", b"\xf0", b"\x10a\x01"])
def test_lz4_broken_block(block: bytes) -> None:
    """A match before the start, a distance of nothing and a cut block are refused."""
    with pytest.raises(ProtocolError):
        lz4.decompress(lz4.MAGIC + _block(block))


def test_bootable_kernel_is_unpacked() -> None:
    """LZ4, XZ and zstd payloads with a PVH note give the ELF file."""
    assert unpack_kernel(_boot_image(lz4.MAGIC + _stored(_KERNEL))) == _KERNEL
    assert unpack_kernel(_boot_image(lzma.compress(_KERNEL))) == _KERNEL
    packed = run_program(["zstd", "--stdout"], stdin=_KERNEL) + struct.pack("<I", len(_KERNEL))
    assert unpack_kernel(_boot_image(packed)) == _KERNEL


@pytest.mark.parametrize(
    "payload",
    [lzma.compress(b"no ELF"), lzma.compress(elf.MAGIC), lz4.MAGIC + _block(b"\xf0"), b"\x28\xb5\x2f\xfd\xff", b"?"],
)
def test_other_kernels_stay(payload: bytes) -> None:
    """A kernel without a PVH entry, or packed in an unknown or broken way, boots as it came."""
    assert unpack_kernel(_boot_image(payload)) == _boot_image(payload)
    assert unpack_kernel(payload) == payload
