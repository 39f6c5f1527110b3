"""IPVS messages: exact bytes, round trips, hostile bytes."""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6, inet_pton
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ipvs.strategies import server_specs, service_specs

from kata_runtime.errors import ProtocolError
from kata_runtime.ipvs import codec, usual_layout
from kata_runtime.ipvs.model import (
    Daemon,
    DaemonState,
    Forwarding,
    Protocol,
    Server,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    Statistics,
    Timeouts,
    Tunnel,
    TunnelType,
)
from kata_runtime.netlink.generic import pack_generic
from kata_runtime.netlink.message import pack_attribute, pack_nested, pack_u32

_V4 = ServiceKey(AF_INET, Protocol.TCP, bytes([10, 0, 0, 1]), 80)
_V6 = ServiceKey(AF_INET6, Protocol.UDP, inet_pton(AF_INET6, "fd00::1"), 443)
_MARK = ServiceKey(AF_INET, Protocol.NONE, b"", 0, 17)


def _hex(data: bytes) -> str:
    return data.hex(" ", -4)


def test_service_keys() -> None:
    """Each family's key, and a firewall mark's, in the kernel's attributes."""
    assert _hex(codec.pack_service_key(_V4)) == (
        "06000100 02000000 06000200 06000000 14000300 0a000001 00000000 00000000 00000000 06000400 00500000"
    )
    assert _hex(codec.pack_service_key(_V6)) == (
        "06000100 0a000000 06000200 11000000 14000300 fd000000 00000000 00000000 00000001 06000400 01bb0000"
    )
    assert _hex(codec.pack_service_key(_MARK)) == "06000100 02000000 08000500 11000000"


def test_service() -> None:
    """Scheduler, engine, flags with their mask, timeout and netmask follow the key."""
    spec = ServiceSpec(_V4, "rr", ServiceFlag.PERSISTENT | ServiceFlag.ONE_PACKET, 300, 0xFFFFFF00, "sip")
    key = codec.pack_service_key(_V4)
    packed = codec.pack_service(spec)
    assert packed.startswith(key)
    assert _hex(packed[len(key) :]) == (
        "07000600 72720000 08000b00 73697000 0c000700 05000000 ffffffff 08000800 2c010000 08000900 ffffff00"
    )
    six = codec.pack_service(ServiceSpec(_V6, "wlc", 0, 0, 64))
    assert _hex(six[-8:]) == "08000900 40000000"


def test_server() -> None:
    """A NAT server has no tunnel attributes, a tunnelling one has three."""
    nat = ServerSpec(ServerKey(AF_INET, bytes([10, 0, 0, 2]), 8080), Forwarding.MASQUERADE, 3, 100, 50)
    assert _hex(codec.pack_server(nat)) == (
        "14000100 0a000002 00000000 00000000 00000000 06000200 1f900000 08000300 00000000 08000400 03000000 "
        "08000500 64000000 08000600 32000000 06000b00 02000000"
    )
    tunnel = nat._replace(forwarding=Forwarding.TUNNEL, tunnel=Tunnel(TunnelType.GUE, 6080, 1))
    assert _hex(codec.pack_server(tunnel)[-24:]) == "05000d00 01000000 06000e00 17c00000 06000f00 01000000"
    assert _hex(codec.pack_server_key(nat.key)) == (
        "14000100 0a000002 00000000 00000000 00000000 06000200 1f900000 06000b00 02000000"
    )


def test_requests() -> None:
    """The header, then service and server nested; timeouts bare; a daemon nested."""
    assert _hex(codec.service_payload(codec.FLUSH, b"")) == "11010000"
    assert _hex(codec.service_payload(codec.DEL_DEST, b"AAAA", b"BBBB")) == (
        "07010000 08000180 41414141 08000280 42424242"
    )
    assert _hex(codec.timeouts_payload(Timeouts(900, 0, 300))) == (
        "0c010000 08000400 84030000 08000500 00000000 08000600 2c010000"
    )
    daemon = Daemon(DaemonState.MASTER, "lo", 7, 1472, bytes([224, 0, 0, 81]), 8848, 1)
    assert _hex(codec.daemon_payload(codec.NEW_DAEMON, codec.pack_daemon(daemon))) == (
        "09010000 3c000380 08000100 01000000 07000200 6c6f0000 08000300 07000000 06000400 c0050000 "
        "08000500 e0000051 06000700 90220000 05000800 01000000"
    )
    assert _hex(codec.pack_daemon_state(DaemonState.BACKUP)) == "08000100 02000000"


def _counters(*values: int) -> bytes:
    return b"".join(pack_attribute(kind, struct.pack("=Q", value)) for kind, value in enumerate(values, 1))


@given(service_specs())
def test_services_round_trip(spec: ServiceSpec) -> None:
    """What is packed for the kernel is what is read from it."""
    attributes = codec.pack_service(spec) + pack_nested(12, _counters(*range(10)))
    payload = pack_generic(codec.NEW_SERVICE, 1, pack_nested(1, attributes))
    assert codec.unpack_service(payload) == (spec, Statistics(*range(10)))


@given(service_specs().flatmap(lambda spec: server_specs(spec.key)))
def test_servers_round_trip(spec: ServerSpec) -> None:
    """So for servers, with their connections and counters."""
    counts = b"".join(pack_u32(kind, kind * 100) for kind in (7, 8, 9))
    attributes = codec.pack_server(spec) + counts + pack_nested(12, _counters(*range(10)))
    payload = pack_generic(codec.NEW_DEST, 1, pack_nested(2, attributes))
    expected = Server(spec, 700, 800, 900, Statistics(*range(10)))
    assert codec.unpack_server(payload, AF_INET) == expected
    assert codec.unpack_server(payload, AF_INET, statistics=False) == expected._replace(statistics=Statistics())


def _as_linux_sends(spec: ServerSpec) -> list[bytes]:
    """The attributes of a server, in the order and with the widths of ip_vs_genl_fill_dest."""
    key, tunnel = spec.key, spec.tunnel
    counters = b"".join(pack_attribute(kind, bytes(8 if kind in (4, 5) else 4)) for kind in range(1, 11))
    return [
        pack_attribute(1, key.address.ljust(16, b"\0")),
        pack_attribute(2, key.port.to_bytes(2, "big")),
        pack_u32(3, spec.forwarding | 0x100),
        pack_u32(4, spec.weight),
        pack_attribute(13, bytes([tunnel.type])),
        pack_attribute(14, tunnel.port.to_bytes(2, "big")),
        pack_attribute(15, struct.pack("=H", tunnel.flags)),
        *(
            pack_u32(kind, value)
            for kind, value in zip((5, 6, 7, 8, 9), (spec.upper, spec.lower, 7, 8, 9), strict=True)
        ),
        pack_attribute(11, struct.pack("=H", key.family)),
        pack_attribute(10, counters),
        pack_attribute(12, _counters(*range(10))),
    ]


def _message(attributes: list[bytes]) -> bytes:
    return pack_generic(codec.NEW_DEST, 1, pack_attribute(2, b"".join(attributes)))


@given(service_specs().flatmap(lambda spec: server_specs(spec.key)), st.booleans())
def test_the_usual_server(spec: ServerSpec, statistics: bool) -> None:
    """The layout that Linux sends is read in one go, with the result of reading it attribute by attribute."""
    attributes = _as_linux_sends(spec)
    expected = Server(spec, 7, 8, 9, Statistics(*range(10)) if statistics else Statistics())
    assert usual_layout.usual_server(_message(attributes), statistics=statistics) == expected
    assert usual_layout.usual_server(_message(attributes[::-1]), statistics=statistics) is None
    for order in (attributes, attributes[::-1]):
        assert codec.unpack_server(_message(order), AF_INET, statistics=statistics) == expected


@given(service_specs().flatmap(lambda spec: server_specs(spec.key)), st.integers(0, 339), st.integers(0, 255))
def test_the_usual_server_with_a_wrong_byte(spec: ServerSpec, place: int, value: int) -> None:
    """One byte changed is another server or refused, never anything else."""
    payload = bytearray(_message(_as_linux_sends(spec)))
    assert len(payload) == 340
    payload[place] = value
    with suppress(ProtocolError):
        assert isinstance(codec.unpack_server(bytes(payload), AF_INET), Server)


def _service_as_linux_sends(spec: ServiceSpec) -> list[bytes]:
    """The attributes of a service, in the order and with the widths of ip_vs_genl_fill_service."""
    key = spec.key
    mask = struct.pack(">I" if key.family == AF_INET else "=I", spec.netmask)
    names = [pack_attribute(6, spec.scheduler.encode() + b"\0")]
    names += [pack_attribute(11, spec.engine.encode() + b"\0")] if spec.engine else []
    identity = [pack_u32(5, key.mark)] if key.mark else [
        pack_attribute(2, struct.pack("=H", key.protocol)),
        pack_attribute(3, key.address.ljust(16, b"\0")),
        pack_attribute(4, key.port.to_bytes(2, "big")),
    ]  # fmt: skip
    return [
        pack_attribute(1, struct.pack("=H", key.family)),
        *identity,
        *names,
        pack_attribute(7, struct.pack("=II", spec.flags | ServiceFlag.HASHED, 0xFFFFFFFF)),
        pack_u32(8, spec.timeout),
        pack_attribute(9, mask),
        pack_attribute(10, b"".join(pack_attribute(kind, bytes(8 if kind in (4, 5) else 4)) for kind in range(1, 11))),
        pack_attribute(12, _counters(*range(10))),
    ]


def _service_message(attributes: list[bytes]) -> bytes:
    return pack_generic(codec.NEW_SERVICE, 1, pack_attribute(1, b"".join(attributes)))


@given(service_specs(), st.booleans())
def test_the_usual_service(spec: ServiceSpec, statistics: bool) -> None:
    """The layout that Linux sends is read in one go, with the result of reading it attribute by attribute."""
    attributes = _service_as_linux_sends(spec)
    expected = (spec, Statistics(*range(10)) if statistics else Statistics())
    usual = usual_layout.usual_service(_service_message(attributes), statistics=statistics)
    assert usual == (None if spec.key.mark else expected)
    assert usual_layout.usual_service(_service_message(attributes[::-1]), statistics=statistics) is None
    for order in (attributes, attributes[::-1]):
        assert codec.unpack_service(_service_message(order), statistics=statistics) == expected


_USUAL_SERVICE = ServiceSpec(_V4, "rr", ServiceFlag.PERSISTENT, 300, 0xFFFFFF00, "sip")


@pytest.mark.parametrize("place", range(len(_service_message(_service_as_linux_sends(_USUAL_SERVICE)))))
def test_the_usual_service_with_a_wrong_byte(place: int) -> None:
    """What is read in one go in spite of a changed byte is what reading attribute by attribute gives."""
    good = _service_message(_service_as_linux_sends(_USUAL_SERVICE))
    for value in {0, 1, 2, 4, 8, 0x40, 0x80, 0xFF, good[place] ^ 1, good[place] ^ 4}:
        payload = good[:place] + bytes([value]) + good[place + 1 :]
        usual = usual_layout.usual_service(payload, statistics=True)
        if usual is not None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(codec, "usual_service", lambda _payload, *, statistics: None)
                assert codec.unpack_service(payload) == usual


def test_names_cannot_steer_a_terminal() -> None:
    """A scheduler's name with control characters is refused."""
    spec = ServiceSpec(_V4, "r\x1b[2J", 0, 0, 0xFFFFFFFF)
    with pytest.raises(ProtocolError) as refusal:
        codec.unpack_service(pack_generic(codec.NEW_SERVICE, 1, pack_nested(1, codec.pack_service(spec))))
    assert str(refusal.value) == "a name 'r\\x1b[2J'"


def test_daemon_round_trip() -> None:
    """A daemon is read as it was started."""
    daemon = Daemon(DaemonState.BACKUP, "eth0", 3, 1000, inet_pton(AF_INET6, "ff02::1"), 99, 5)
    assert codec.unpack_daemon(codec.daemon_payload(codec.NEW_DAEMON, codec.pack_daemon(daemon))) == daemon


def test_info_and_timeouts() -> None:
    """Version and table size; the three timeouts."""
    info = pack_generic(14, 1, pack_u32(1, 0x010201) + pack_u32(2, 4096))
    assert codec.unpack_info(info) == ((1, 2, 1), 4096)
    assert codec.unpack_timeouts(codec.timeouts_payload(Timeouts(1, 2, 3))) == Timeouts(1, 2, 3)


@given(st.binary(max_size=200), st.sampled_from([1, 2, 3]))
def test_hostile_bytes(data: bytes, kind: int) -> None:
    """Whatever a guest sends is refused as broken, never anything else."""
    payload = pack_generic(1, 1, pack_nested(kind, data))
    for unpack in (
        codec.unpack_service,
        codec.unpack_daemon,
        codec.unpack_info,
        codec.unpack_timeouts,
        lambda hostile: codec.unpack_server(hostile, AF_INET),
    ):
        for hostile in (payload, data):
            with pytest.raises(ProtocolError):
                unpack(hostile)
