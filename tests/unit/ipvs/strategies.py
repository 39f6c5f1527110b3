"""Any service and any server, for property tests."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from hypothesis import strategies as st

from kata_runtime.ipvs.model import (
    FULL_MASK,
    FULL_PREFIX,
    SCHEDULERS,
    Forwarding,
    Protocol,
    ServerKey,
    ServerSpec,
    ServiceFlag,
    ServiceKey,
    ServiceSpec,
    Tunnel,
    TunnelFlag,
    TunnelType,
)

_PORTS = st.integers(1, 65535)
_PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.UDP, Protocol.SCTP])


def _address(family: int) -> st.SearchStrategy[bytes]:
    size = 4 if family == AF_INET else 16
    return st.binary(min_size=size, max_size=size)


@st.composite
def service_keys(draw: st.DrawFn) -> ServiceKey:
    """An address of either family, or a firewall mark."""
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    if draw(st.booleans()):
        return ServiceKey(family, Protocol.NONE, b"", 0, draw(st.integers(1, 0xFFFFFFFF)))
    return ServiceKey(family, draw(_PROTOCOLS), draw(_address(family)), draw(_PORTS))


@st.composite
def service_specs(draw: st.DrawFn) -> ServiceSpec:
    """A service as the grammar can ask for."""
    key = draw(service_keys())
    flags = draw(st.sampled_from([0, 8, 16, 32, 8 | 16, 8 | 16 | 32]))
    timeout, full = 0, FULL_MASK if key.family == AF_INET else FULL_PREFIX
    netmask, engine = full, ""
    if draw(st.booleans()):
        flags |= ServiceFlag.PERSISTENT
        timeout = draw(st.integers(1, 2_678_400))
        netmask = draw(st.integers(1, full))
        engine = draw(st.sampled_from(["", "sip"]))
    if key.mark or key.protocol == Protocol.UDP:
        flags |= draw(st.sampled_from([0, ServiceFlag.ONE_PACKET]))
    return ServiceSpec(key, draw(st.sampled_from(SCHEDULERS)), int(flags), timeout, netmask, engine)


_TUNNELS = st.one_of(
    st.just(Tunnel()),
    st.builds(Tunnel, st.just(TunnelType.GUE), _PORTS, st.sampled_from([0, 1, 2])),
    st.builds(Tunnel, st.just(TunnelType.GRE), st.just(0), st.sampled_from([0, int(TunnelFlag.CHECKSUM)])),
)


@st.composite
def server_specs(draw: st.DrawFn, service: ServiceKey) -> ServerSpec:
    """A server that ``service`` can have."""
    forwarding = draw(st.sampled_from([Forwarding.MASQUERADE, Forwarding.TUNNEL, Forwarding.ROUTE]))
    tunnelling = forwarding == Forwarding.TUNNEL
    family = draw(st.sampled_from([AF_INET, AF_INET6])) if tunnelling else service.family
    port = draw(_PORTS) if forwarding == Forwarding.MASQUERADE or service.mark else service.port
    lower = draw(st.integers(0, 1000))
    return ServerSpec(
        ServerKey(family, draw(_address(family)), port),
        forwarding,
        draw(st.integers(0, 65535)),
        lower + draw(st.integers(0, 1000)),
        lower,
        draw(_TUNNELS) if tunnelling else Tunnel(),
    )
