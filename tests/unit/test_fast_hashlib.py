"""The light SHA-256 against the standard library's."""

from __future__ import annotations

import hashlib

import pytest

from kata_runtime import fast_hashlib


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 99], ids=len)
def test_digests_are_those_of_the_original(data: bytes) -> None:
    """Both give the same digest (FIPS 180-4)."""
    assert fast_hashlib.sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()
