"""Rules as text: what ``ipvsadm -S -n`` 1.31 prints, byte for byte, and what --restore reads."""

from __future__ import annotations

from _socket import AF_INET6

from kata_runtime.ipvs.listing import netmask_text
from kata_runtime.ipvs.model import (
    FORWARDING_NAMES,
    Forwarding,
    Protocol,
    ServiceFlag,
    TunnelFlag,
    TunnelType,
    address_text,
    flag_names,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_runtime.ipvs.model import ServerSpec, ServiceKey, ServiceSpec, Tunnel

_SERVICE_OPTIONS = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
_CHECKSUM_OPTIONS = {
    0: "--tun-nocsum",
    TunnelFlag.CHECKSUM: "--tun-csum",
    TunnelFlag.REMOTE_CHECKSUM: "--tun-remcsum",
}


def rules(spec: ServiceSpec, servers: Iterable[str]) -> str:
    """The rules that make a service and its servers, which are given as ``server_words``."""
    return f"\n-a {key_words(spec.key)} ".join([add_service(spec), *servers]) + "\n"


def add_service(spec: ServiceSpec) -> str:
    """``-A -t 10.0.0.1:80 -s rr``"""
    text = f"-A {key_words(spec.key)} -s {spec.scheduler}"
    if spec.flags & ServiceFlag.PERSISTENT:
        text += f" -p {spec.timeout}"
        mask = netmask_text(spec)
        if mask:
            text += f" -M {mask}"
    if spec.engine:
        text += f" --pe {spec.engine}"
    if spec.flags & ServiceFlag.ONE_PACKET:
        text += " -o"
    names = flag_names(spec.scheduler, spec.flags)
    return f"{text} -b {','.join(names)}" if names else text


def add_server(service: ServiceKey, spec: ServerSpec) -> str:
    """``-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m -w 1``"""
    return f"-a {key_words(service)} {server_words(spec)}"


def server_words(spec: ServerSpec) -> str:
    """``-r 10.0.0.2:80 -m -w 1``"""
    text = f"-r {spec.key.text} {FORWARDING_NAMES[spec.forwarding].option or '-g'} -w {spec.weight}"
    return text + _tunnel_words(spec.tunnel) if spec.forwarding == Forwarding.TUNNEL else text


def key_words(key: ServiceKey) -> str:
    """``-t 10.0.0.1:80``, ``-f 17``"""
    if key.mark:
        return f"-f {key.mark} -6" if key.family == AF_INET6 else f"-f {key.mark}"
    return f"{_SERVICE_OPTIONS[key.protocol]} {address_text(key.family, key.address, key.port)}"


def _tunnel_words(tunnel: Tunnel) -> str:
    text = f" --tun-type {tunnel.type.name.lower()}"
    if tunnel.type == TunnelType.IPIP:
        return text
    if tunnel.type == TunnelType.GUE:
        text += f" --tun-port {tunnel.port}"
    return f"{text} {_CHECKSUM_OPTIONS.get(tunnel.flags, '')}".rstrip()
