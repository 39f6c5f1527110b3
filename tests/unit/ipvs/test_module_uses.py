"""What the uses of the kernel's modules say about the number of services."""

from __future__ import annotations

import pytest

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs.module_uses import are_of

_LOADED = """\
ip_vs_rr 16384 1000 - Live 0xffffffffc0308000
ip_vs_wlc 16384 0 - Live 0xffffffffc0307000
ip_vs 188416 1004 ip_vs_rr,ip_vs_wlc, Live 0xffffffffc028f000
nf_conntrack 188416 2 ip_vs,nf_conntrack_netlink, Live 0xffffffffc0241000
nf_defrag_ipv4 16384 1 nf_conntrack, Live 0xffffffffc0230000
"""
_ENGINE = "ip_vs_pe_sip 16384 %d - Live 0xffffffffc0309000\n"


def _are_of(text: str, services: int) -> bool:
    data = text.encode()
    return are_of([data[:50], data[50:]], services)


def test_services_alone() -> None:
    """Each service is one use of IPVS and each scheduler two; whoever asks for fewer or more services is told no."""
    assert [_are_of(_LOADED, services) for services in (999, 1000, 1001)] == [False, True, False]
    assert _are_of("ip_vs 188416 3 - Live 0xffffffffc028f000\n", 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A service of IPv6, a synchronisation daemon, or a request that is being served.
        ("188416 1004 ", "188416 1005 "),
        ("188416 1004 ip_vs_rr,", "188416 1006 ip_vs_ftp,ip_vs_rr,"),
        ("188416 1004 ip_vs_rr,", "188416 1006 xt_ipvs,ip_vs_rr,"),
        ("188416 1004 ip_vs_rr,", "188416 1006 ip_vs_lc,ip_vs_rr,"),  # which is not listed itself
        ("0xffffffffc028f000", "0xffffffffc028f000 (E)"),
        ("ip_vs_wlc, Live", "ip_vs_wlc, Unloading"),
        ("0 - Live", "0 - Loading"),
        ("ip_vs 188416", "ip_vz 188416"),
    ],
)
def test_anything_else(before: str, after: str) -> None:
    """Whatever else uses IPVS, is about to, or has just begun, makes it uncertain; a tainted module does not."""
    assert _are_of(_LOADED.replace(before, after), 1000) == (after == "0xffffffffc028f000 (E)")


def test_persistence_engines() -> None:
    """One that is loaded is as a scheduler; once a service has it, socket options do not tell all."""
    loaded = _LOADED.replace("1004 ip_vs_rr,", "1006 ip_vs_pe_sip,ip_vs_rr,")
    assert _are_of(_ENGINE % 0 + loaded, 1000)
    assert not _are_of(_ENGINE % 1 + loaded, 1000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ip_vs 188416 1004 ip_vs_rr\n", "a line 'ip_vs 188416 1004 ip_vs_rr' in the guest's list of modules"),
        ("ip_vs 188416 -1 - Live 0\n", "a line 'ip_vs 188416 -1 - Live 0' in the guest's list of modules"),
        ("ip_vs 1 1 - Live 0", "the guest's list of modules is cut short"),
        ("".join(f"m{n} 1 1 - Live 0\n" for n in range(4097)), "more than 4096 modules in the guest's list of modules"),
    ],
)
def test_broken_lists(text: str, reason: str) -> None:
    """A list that no kernel writes is refused."""
    with pytest.raises(ProtocolError) as refusal:
        _are_of(text, 1000)
    assert str(refusal.value) == reason
