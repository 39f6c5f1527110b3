"""The order of listings, next to ipvsadm's own algorithm on any keys."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from hypothesis import given
from hypothesis import strategies as st

from kata_runtime.ipvs import listing_order
from kata_runtime.ipvs.model import Forwarding, Protocol, Server, ServerKey, ServerSpec, ServiceKey, Statistics

# Few values, near and far, so that many are equal in part.
_WORDS = st.sampled_from([0, 1, 2, 0x0A000001, 0x0A000002, 0x7FFFFFFF, 0x80000000, 0xC8000001, 0xFFFFFFFF])
_NEAR = st.sampled_from([0x0A000001, 0x0A000002, 0x0A0000FF])


def _addresses(words: st.SearchStrategy[int], count: int) -> st.SearchStrategy[bytes]:
    return st.lists(words, min_size=count, max_size=count).map(
        lambda made: b"".join(word.to_bytes(4, "big") for word in made)
    )


@st.composite
def _service_keys(draw: st.DrawFn, words: st.SearchStrategy[int]) -> ServiceKey:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    if draw(st.integers(0, 3)) == 0:
        return ServiceKey(family, Protocol.NONE, b"", 0, draw(st.one_of(words, st.integers(1, 3))) or 1)
    address = draw(_addresses(words, 1 if family == AF_INET else 4))
    return ServiceKey(family, draw(st.sampled_from([Protocol.TCP, Protocol.UDP])), address, draw(st.integers(80, 82)))


@st.composite
def _servers(draw: st.DrawFn, words: st.SearchStrategy[int]) -> Server:
    family = draw(st.sampled_from([AF_INET, AF_INET, AF_INET, AF_INET6]))
    key = ServerKey(family, draw(_addresses(words, 1 if family == AF_INET else 4)), draw(st.integers(80, 82)))
    return Server(ServerSpec(key, Forwarding.MASQUERADE, draw(st.integers(0, 3))), 0, 0, 0, Statistics())


@given(st.one_of(*(st.lists(_service_keys(words), max_size=12) for words in (_WORDS, _NEAR))))
def test_services(keys: list[ServiceKey]) -> None:
    """Services come as from ipvsadm's merge sort with its comparison, equal ones in the order that they had."""
    pairs = list(zip(keys, range(len(keys)), strict=True))
    expected = listing_order._merge_sort(pairs, lambda a, b: listing_order._compare_services(a[0], b[0]))
    assert listing_order.by_service(pairs) == [number for _, number in expected]


@given(st.one_of(*(st.lists(_servers(words), max_size=12) for words in (_WORDS, _NEAR))))
def test_servers(servers: list[Server]) -> None:
    """So for the servers of a service."""
    expected = listing_order._merge_sort(servers, lambda a, b: listing_order._compare_servers(a.spec.key, b.spec.key))
    assert listing_order.servers_in_order(servers, lambda server: server.spec.key) == expected


def test_far_addresses() -> None:
    """ipvsadm subtracts addresses as C integers: 200.0.0.1 comes before 10.0.0.1, and 11.0.0.1 behind it."""
    keys = [ServiceKey(AF_INET, Protocol.TCP, bytes([first, 0, 0, 1]), 80) for first in (10, 200, 11)]
    assert listing_order.by_service([(keys[0], "10"), (keys[1], "200")]) == ["200", "10"]
    assert listing_order.by_service([(keys[2], "11"), (keys[0], "10")]) == ["10", "11"]


def test_marks_of_both_families() -> None:
    """Of services with the same firewall mark that of IPv4 comes first, in whichever order they were added."""
    four, six = (ServiceKey(family, Protocol.NONE, b"", 0, 7) for family in (AF_INET, AF_INET6))
    assert listing_order.by_service([(six, "6"), (four, "4")]) == ["4", "6"]
