"""Unpacks a kernel when the image is built instead of at every boot.

A bzImage unpacks itself at every boot, which costs a second on an emulated processor. The kernel inside is an
ELF file that QEMU boots directly where it has a PVH entry (Xen's HVM start info, XEN_ELFNOTE_PHYS32_ENTRY).
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
# scripts/Makefile.lib (size_append): behind a zstd frame stands the length of what is in it.
_APPENDED_SIZE = 4
_PVH_NOTES = tuple(struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))


def unpack_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside ``image`` if QEMU can boot that, else ``image``."""
    if image[_SIGNATURE : _SIGNATURE + 4] != b"HdrS" or len(image) < _PAYLOAD_FIELDS + _PAYLOAD.size:
        return image
    offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_FIELDS)
    start = (image[_SETUP_SECTORS] + 1) * _SECTOR + offset
    kernel = _decompress(image[start : start + length])
    return kernel if kernel.startswith(elf.MAGIC) and any(note in kernel for note in _PVH_NOTES) else image


def _decompress(payload: bytes) -> bytes:
    """Return the content of a payload (LZ4 in Debian 12, zstd in 13), nothing for a format that is not known here."""
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
