"""All services by one socket option: exact bytes, the same services as netlink's, when it is not trusted."""

from __future__ import annotations

import errno
import struct
from _socket import AF_INET, AF_INET6
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.options_guest import OptionsGuest
from tests.unit.ipvs.strategies import service_specs

from kata_runtime.errors import KernelError, ProtocolError
from kata_runtime.ipvs import sockopt_services
from kata_runtime.ipvs.model import Protocol, ServiceFlag, ServiceKey, ServiceSpec, Statistics
from kata_runtime.ipvs.socket_options import identity_of, normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kata_runtime.ipvs.sockopt_services import Entry

_GET_INFO, _GET_SERVICES = 1153, 1154
_KEY = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80)
_MARK = ServiceKey(AF_INET, Protocol.NONE, b"", 0, 17)
_IPV6 = ServiceKey(AF_INET6, Protocol.TCP, bytes(15) + b"\1", 80)
_SPEC = ServiceSpec(_KEY, "rr", 0, 0, 0xFFFFFFFF)
_UNKNOWN: Any = 99
_NO_ENTRY = bytes(104)
_ZERO = (0,) * 10


def _packed(spec: ServiceSpec, count: int, counted: Sequence[int] = _ZERO) -> bytes:
    """struct ip_vs_service_entry as the C compiler lays it out; a service with a mark has a protocol, too."""
    key = spec.key
    narrow = [value if place in (3, 4) else value & 0xFFFFFFFF for place, value in enumerate(counted)]
    return struct.pack(
        "@H2x4s2s2xI16sII4sI0QIIIQQIIIII0Q",
        *(key.protocol or 6, key.address or bytes(4), key.port.to_bytes(2, "big"), key.mark),
        *(spec.scheduler.encode(), spec.flags | ServiceFlag.HASHED, spec.timeout, spec.netmask.to_bytes(4, "big")),
        *(count, *narrow),
    )


def _modules(services: int) -> bytes:
    return f"ip_vs_rr 1 {services} - Live 0\nip_vs 1 {services + 2} ip_vs_rr, Live 0\n".encode()


def _guest(entries: Sequence[bytes], known: int | None = None, size: int = 1 << 20, others: int = 0) -> OptionsGuest:
    """A guest with these entries, which says that there are ``known`` services, or as many; IPVS has others as well."""
    number = len(entries) if known is None else known
    answers = {
        _GET_INFO: struct.pack("@III", 0x10201, 4096, number),
        _GET_SERVICES: bytes(8) + b"".join(entries),
    }
    return OptionsGuest(answers, size, _modules(number + others))


def _all(guest: OptionsGuest, *, statistics: bool = False) -> list[Entry] | None:
    return sockopt_services.all_services(guest, statistics=statistics)


_MANY = [_packed(_SPEC, 1)] * 200


def test_exact_requests() -> None:
    """It is asked how many services there are, who uses IPVS, and for one service more than there should be."""
    guest = _guest([*_MANY, _NO_ENTRY], 200)
    found = _all(guest)
    assert found is not None
    assert [(entry.head(statistics=True), entry.servers) for entry in found] == [((_SPEC, Statistics()), 1)] * 200
    assert guest.asked == [
        (_GET_INFO, [(12, b"")]),
        (_GET_SERVICES, [(8 + 201 * 104, (201).to_bytes(4, "little"))]),
    ]
    assert guest.files == ["modules"]


@given(
    st.lists(
        st.tuples(
            service_specs().filter(lambda spec: spec.key.family == AF_INET),
            st.integers(0, 0xFFFFFFFF),
            st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 10),
        ),
        max_size=5,
    ),
    st.integers(1, 300),
)
def test_every_service(services: list[tuple[ServiceSpec, int, tuple[int, ...]]], size: int) -> None:
    """Wherever the answer is cut, each service has its settings, its counters, and what asks for its servers."""
    guest = _guest([_packed(*service) for service in services], size=size)
    found = sockopt_services.listed(guest, len(services))
    assert [(entry.head(statistics=True), entry.servers, normalised(entry.identity)) for entry in found] == [
        ((spec._replace(engine=""), Statistics(*counted)), servers, identity_of(spec.key))
        for spec, servers, counted in services
    ]
    assert [entry.head(statistics=False)[1] for entry in found] == [Statistics()] * len(found)


def test_services_by_name() -> None:
    """Services are found by protocol, address and port, or by their mark; those that are not listed have None."""
    marked = _SPEC._replace(key=_MARK)
    guest = _guest([_packed(marked, 7), _packed(_SPEC, 5)])
    assert sockopt_services.identified(guest, [_KEY, _IPV6, _MARK]) == [
        (bytes.fromhex("06000000 0a000001 00500000 00000000"), 5),
        None,
        (bytes.fromhex("00000000 00000000 00000000 11000000"), 7),
    ]
    assert guest.asked == [(_GET_SERVICES, [(216, (2).to_bytes(4, "little"))])]
    for entry in (_packed(marked, 1), _NO_ENTRY):
        assert sockopt_services.identified(_guest([entry]), [_KEY]) == [None]


def test_not_asked() -> None:
    """Without services of IPv4, and for more than one answer can hold, the guest is not asked."""
    guest = _guest([])
    assert sockopt_services.identified(guest, [_IPV6]) == [None]
    assert sockopt_services.identified(guest, [_KEY] * 80_660) == [None] * 80_660
    assert guest.asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (bytes(111), "a socket option of the guest is cut short"),
        (bytes(224), "the guest sent more of a socket option than was asked for"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_broken_answers(answer: bytes, reason: str, size: int) -> None:
    """Bytes that are missing, or more than was asked for, are refused."""
    with pytest.raises(ProtocolError) as refusal:
        sockopt_services.identified(OptionsGuest({_GET_SERVICES: answer}, size), [_KEY])
    assert str(refusal.value) == reason


@given(st.binary(max_size=300), st.integers(1, 300))
def test_hostile_lists(answer: bytes, size: int) -> None:
    """Whatever a guest lists is refused as broken, or says of the services asked about that it knows them or not."""
    with suppress(ProtocolError):
        guest = OptionsGuest({_GET_SERVICES: answer.ljust(112, b"\0")}, size)
        assert len(sockopt_services.identified(guest, [_KEY])) == 1


@pytest.mark.parametrize("place", [3, 4])
def test_large_counters(place: int) -> None:
    """Once a service has counted 2^35 bytes in a direction, its other counters may have more than 32 bits."""
    for counted, is_exact in ((1 << 35) - 1, True), (1 << 35, False):
        values = [0] * 10
        values[place] = counted
        guest = _guest([*_MANY[1:], _packed(_SPEC, 1, values), _NO_ENTRY], 200)
        assert (_all(guest, statistics=True) is not None) == is_exact
        assert _all(guest) is not None


def test_when_it_is_not_all() -> None:
    """Few services, other users of IPVS, and services that came or went meanwhile are left to netlink."""
    for entries, known in (
        (_MANY[1:], 199),  # few
        ([*_MANY, _MANY[0]], 200),  # one more came
        ([*_MANY[1:], _NO_ENTRY, _NO_ENTRY], 200),  # one went
        (_MANY, 80_660),  # more than one answer can hold
    ):
        assert _all(_guest(entries, known)) is None
    other = _guest([*_MANY, _NO_ENTRY], 200, others=1)
    assert _all(other) is None
    assert other.asked == [(_GET_INFO, [(12, b"")])]


def test_agents_that_know_nothing_of_it() -> None:
    """A guest that was started by an earlier version refuses, and is asked by netlink."""

    class Old(OptionsGuest):
        def read_file(self, name: str) -> Iterator[bytes]:
            raise KernelError(f"reading /proc/{name} in the guest", errno.ENOENT)

    assert _all(Old({_GET_INFO: struct.pack("@III", 0x10201, 4096, 200)})) is None


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 300))
def test_hostile_answers(services: bytes, modules: bytes, size: int) -> None:
    """Whatever a guest sends is refused as broken, or is not all."""
    answers = {_GET_INFO: struct.pack("@III", 0, 0, 200), _GET_SERVICES: services}
    for file in (modules, _modules(200)):
        guest = OptionsGuest(answers, size, file)
        with suppress(ProtocolError):
            assert _all(guest, statistics=True) is None


def test_broken_services() -> None:
    """A protocol or a scheduler that no kernel has is refused."""
    for entry, reason in (
        (_packed(_SPEC._replace(key=_KEY._replace(protocol=_UNKNOWN)), 0), "a virtual service of protocol 99"),
        (_packed(_SPEC._replace(scheduler="r r"), 0), "a scheduler or persistence engine named 'r r'"),
    ):
        (found,) = sockopt_services.listed(_guest([entry]), 1)
        with pytest.raises(ProtocolError, match=f"^{reason}$"):
            found.head(statistics=False)
