"""A host on a logical port: a network namespace with one interface instead of a VM."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lab.namespace import HostNamespace, made_namespace
from lab.underlay import OFFLOADS_OFF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.host import Host
    from lab.logical_switch import LogicalPort

_INSIDE = "eth0"


@contextmanager
def endpoint(host: Host, name: str, port: LogicalPort, mtu: int) -> Iterator[HostNamespace]:
    """A namespace ``name`` with ``port`` as eth0, on ``host``."""
    device = f"ep{port.mac[-5:].replace(':', '')}"
    with ExitStack() as stack:
        inside = stack.enter_context(made_namespace(name))
        host.namespace.ip(f"link add {device} mtu {mtu} type veth peer name {_INSIDE} mtu {mtu} netns {name}")
        stack.callback(host.namespace.ip, f"link delete {device}")
        host.namespace.ip(f"link set {device} up")
        inside.ip(f"link set {_INSIDE} address {port.mac} up")
        inside.run("ethtool", "-K", _INSIDE, *OFFLOADS_OFF)
        inside.ip(f"address add {port.address}/16 dev {_INSIDE}")
        host.plug(device, port.name, port.mac)
        stack.callback(host.unplug, device)
        yield inside
