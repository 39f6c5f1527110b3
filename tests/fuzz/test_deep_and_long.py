"""Inputs that are too deep or too long for a fuzzer, which tries many short ones, to come upon."""

from __future__ import annotations

import pytest
from tests.fuzz import corpus

_DEPTH = 100_000
# Python converts no decimal number of more than 4,300 digits (sys.set_int_max_str_digits).
_DIGITS = b"9" * 5000
_HEXADECIMAL = b"0x" + b"f" * 5000
_LISTS = b"[" * _DEPTH
_OBJECTS = b'{"a":' * _DEPTH
_INPUTS = {
    "argv": [b"kill\0a\0" + _DIGITS, b"--lock-timeout\0" + _DIGITS + b"\0state\0a"],
    "configuration": [
        b"a = " + _LISTS, b"a = " + b"{a=" * _DEPTH, b"a = " + _DIGITS, b"a" + b".a" * 3000 + b" = 1",
        b"[hypervisor.qemu]\ndefault_memory = " + _HEXADECIMAL, b"[hypervisor.qemu]\npath = [" + _HEXADECIMAL + b"]",
    ],
    "fast_json": [_LISTS, _OBJECTS, _DIGITS],
    "ipvsadm": [b"-A -t 1.2.3.4:" + _DIGITS, b"-A -f " + _DIGITS, b"-L " + b"'" * _DEPTH, b"-A -t [" + b":" * 60_000],
    "json": [_LISTS, _OBJECTS, _DIGITS],
    "meminfo": [b"MemAvailable: " + _DIGITS, b"MemTotal: 1 kB\n" * 10_000],
    "nic": [_LISTS, b'{"mtu":' + _DIGITS + b"}", b'{"mtu":' + _LISTS],
    "qmp": [_LISTS + b"\n", _OBJECTS + b"\n", b'{"id":' + _DIGITS + b"}\n", b'{"return":' + _DIGITS + b',"id":2}\n'],
    "quick": [b"-A -t 1.2.3.4:" + _DIGITS],
    "record": [bytes([kind]) + data for kind in range(3) for data in (_LISTS, _OBJECTS, b'"pid":' + _LISTS, _DIGITS)],
    "rules": [b"-A -t 1.2.3.4:" + _DIGITS, b"#" * _DEPTH, b"-A -t 1.2.3.4:80 " * 3000, b"\n" * _DEPTH],
}  # fmt: skip


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, inputs in _INPUTS.items() for data in inputs])
def test_value_or_error(name: str, data: bytes) -> None:
    """They, too, end in a value or a KataError."""
    corpus.TARGETS[name].run(data)
