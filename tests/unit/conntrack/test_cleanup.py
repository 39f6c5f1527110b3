"""Which tracked connections cleanup deletes, as its options say."""

from __future__ import annotations

import pytest

from kata_runtime.conntrack.cleanup import Filter, parse_filter
from kata_runtime.errors import InputError


def test_filters() -> None:
    """cleanup's options in their spellings."""
    expected = Filter(bytes([10, 0, 0, 1]), 6)
    for words in ("-d 10.0.0.1 -p tcp", "--orig-dst 10.0.0.1 --protonum tcp", "--protonum=TCP -d10.0.0.1"):
        assert parse_filter(words) == expected
    assert parse_filter("-p udp") == Filter(b"", 17)
    for words, reason in {
        "": "cleanup needs to know what to delete; give -d ADDRESS, -p tcp|udp, or both",
        "-d": "option --orig-dst lacks its value",
        "-d web": "original destination 'web' is no address; write 10.0.0.1 or fd00::1",
        "-p 6": "protocol '6' is unknown; one of tcp, udp, sctp",
        "-d 10.0.0.1 -d 10.0.0.2": "--orig-dst is given twice",
        "-s 10.0.0.1": "cleanup does not know '-s'; -d ADDRESS and -p tcp|udp are possible",
    }.items():
        with pytest.raises(InputError) as refusal:
            parse_filter(words)
        assert str(refusal.value) == reason
