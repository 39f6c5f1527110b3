"""Reads the needed libraries and the module information of 64-bit little-endian ELF files (elf(5))."""

from __future__ import annotations

import struct

from kata_runtime.errors import ProtocolError

MAGIC = b"\x7fELF\x02\x01"
_SECTION_TABLE = struct.Struct("<40xQ10xHHH")  # Elf64_Ehdr: e_shoff, e_shentsize, e_shnum, e_shstrndx
_SECTION = struct.Struct("<II8x8xQQ")  # Elf64_Shdr: sh_name, sh_type, sh_offset, sh_size
_DYNAMIC = struct.Struct("<qQ")
_SHT_NOBITS = 8  # the section occupies no space in the file
_DT_NEEDED = 1


def needed_libraries(data: bytes) -> list[str]:
    """Return the sonames that a program or library is linked to; raise ProtocolError for a broken file."""
    sections = _sections(data)
    dynamic, names = sections.get(b".dynamic", b""), sections.get(b".dynstr", b"")
    whole = dynamic[: len(dynamic) // _DYNAMIC.size * _DYNAMIC.size]
    return [_text(names, value).decode() for tag, value in _DYNAMIC.iter_unpack(whole) if tag == _DT_NEEDED]


def module_information(data: bytes) -> dict[str, list[str]]:
    """Return ``{key: values}`` of a kernel module's .modinfo (include/linux/moduleparam.h: __MODULE_INFO)."""
    found: dict[str, list[str]] = {}
    for item in _sections(data).get(b".modinfo", b"").split(b"\0"):
        key, separator, value = item.decode(errors="replace").partition("=")
        if separator:
            found.setdefault(key, []).append(value)
    return found


def _sections(data: bytes) -> dict[bytes, bytes]:
    if not data.startswith(MAGIC):
        raise ProtocolError("not a 64-bit little-endian ELF file")
    try:
        offset, size, count, names_index = _SECTION_TABLE.unpack_from(data)
        headers = [_SECTION.unpack_from(data, offset + size * index) for index in range(count)]
        if not headers:
            return {}
        _, _, start, length = headers[names_index]
    except (struct.error, IndexError) as exc:
        raise ProtocolError("ELF file is cut short") from exc
    names = data[start : start + length]
    return {
        _text(names, name): data[begin : begin + extent] for name, kind, begin, extent in headers if kind != _SHT_NOBITS
    }


def _text(table: bytes, offset: int) -> bytes:
    return table[offset : table.find(b"\0", offset)]
