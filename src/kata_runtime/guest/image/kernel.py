"""Unpacking a kernel ahead of time.

A bzImage unpacks itself at every boot, which costs seconds on an emulated processor. The kernel inside is an ELF file that
QEMU boots directly where it has a PVH entry (Xen's HVM start info, XEN_ELFNOTE_PHYS32_ENTRY).
"""

from __future__ import annotations

import lzma
import struct

from kata_runtime.guest.image import elf

# Documentation/x86/boot.rst: setup_sects 0x1f1, boot signature "HdrS" 0x202, payload_offset and payload_length 0x248.
_SETUP_SECTORS = 0x1F1
_SIGNATURE = 0x202
_PAYLOAD = struct.Struct("<II")
_PAYLOAD_FIELDS = 0x248
_SECTOR = 512
_XZ_MAGIC = b"\xfd7zXZ\0"
_PVH_NOTE = struct.pack("<III", 4, 4, 18) + b"Xen\0"
_PVH_NOTE_WIDE = struct.pack("<III", 4, 8, 18) + b"Xen\0"


def unpack_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside ``image`` if QEMU can boot that, else ``image``."""
    if image[_SIGNATURE : _SIGNATURE + 4] != b"HdrS":
        return image
    offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_FIELDS)
    start = (image[_SETUP_SECTORS] + 1) * _SECTOR + offset
    payload = image[start : start + length]
    if not payload.startswith(_XZ_MAGIC):
        return image
    try:
        kernel = lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload)
    except lzma.LZMAError:
        return image
    bootable = kernel.startswith(elf.MAGIC) and (_PVH_NOTE in kernel or _PVH_NOTE_WIDE in kernel)
    return kernel if bootable else image
