"""Unpacks the kernel once, when the image is built.

A bzImage unpacks itself at every boot, which takes a second on an emulated processor. It contains an ELF file, which
QEMU can boot directly if it has a PVH entry (Xen's HVM start info, XEN_ELFNOTE_PHYS32_ENTRY).
"""

from __future__ import annotations

import lzma
import struct

from kata_runtime.errors import HostError, ProtocolError
from kata_runtime.guest.image import elf, lz4
from kata_runtime.guest.image.packages import run_program

# Documentation/x86/boot.rst: setup_sects, the signature of the header, payload_offset and payload_length.
_SETUP_SECTORS = 0x1F1
_SIGNATURE = 0x202
_PAYLOAD = struct.Struct("<II")
_PAYLOAD_FIELDS = 0x248
_SECTOR = 512
_XZ_MAGIC = b"\xfd7zXZ\0"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# The uncompressed length, which the kernel's build appends to a zstd frame (scripts/Makefile.lib, size_append).
_APPENDED_SIZE = 4
_PVH_NOTES = tuple(struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))


def unpack_kernel(image: bytes) -> bytes:
    """Return the ELF kernel in ``image`` if QEMU can boot it, else ``image``."""
    if image[_SIGNATURE : _SIGNATURE + 4] != b"HdrS" or len(image) < _PAYLOAD_FIELDS + _PAYLOAD.size:
        return image
    offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_FIELDS)
    start = (image[_SETUP_SECTORS] + 1) * _SECTOR + offset
    kernel = _decompress(image[start : start + length])
    return kernel if kernel.startswith(elf.MAGIC) and any(note in kernel for note in _PVH_NOTES) else image


def _decompress(payload: bytes) -> bytes:
    """Decompress a payload (LZ4 in Debian 12, zstd in 13); return nothing for an unknown format."""
    try:
        if payload.startswith(lz4.MAGIC):
            return lz4.decompress(payload)
        if payload.startswith(_XZ_MAGIC):
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
        if payload.startswith(_ZSTD_MAGIC):
            return run_program(["zstd", "--decompress", "--stdout"], stdin=payload[:-_APPENDED_SIZE])
    except (HostError, ProtocolError, lzma.LZMAError):
        pass
    return b""
