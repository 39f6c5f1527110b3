"""Endpoint of a NIC in a Linux bridge of the command's network namespace, by a TAP of its own."""

from __future__ import annotations

import errno

from kata_runtime.errors import InputError, KernelError
from kata_runtime.netlink.exchange import call
from kata_runtime.netlink.link import get_link, links_of, set_link
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint import Plan
from kata_runtime.network.endpoint.created_tap import CreatedTapEndpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.netlink.link import Link
    from kata_runtime.netlink.local import LocalTransport
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class BridgeEndpoint(CreatedTapEndpoint):
    """A TAP in a Linux bridge. Its deletion removes it from the bridge: ``release`` has nothing to do."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """See ``Endpoint``.

        :raise InputError: there is no such bridge, or its MTU is less than the NIC's.
        """
        super().__init__(session, nic, namespace)
        assert nic.port is not None
        with namespace.transport() as transport:
            self._bridge = _find_bridge(transport, nic.port.bridge)
        if nic.mtu > self._bridge.mtu:
            raise InputError(
                f"mtu {nic.mtu} is larger than that of bridge {self._bridge.name!a}, {self._bridge.mtu}: "
                "others on it would not get such packets",
                field="mtu",
                hint=f"ask for {self._bridge.mtu} or less, or raise that of the bridge and of all its ports",
            )

    def plan(self) -> Plan:
        """See ``Endpoint``."""
        step = f"bridge: add {self._nic.device} to bridge {self._bridge.name}"
        return Plan([*super().plan().before, step], [], [])

    @property
    def _mtu(self) -> int:
        # By default a bridge has the smallest MTU of its ports, so this one must not lower it for all.
        return self._bridge.mtu

    def _join(self, transport: LocalTransport, index: int) -> None:
        call(transport, Family.ROUTE, set_link(index, master=self._bridge.index))


def _find_bridge(transport: LocalTransport, name: str) -> Link:
    try:
        link = links_of(call(transport, Family.ROUTE, get_link(name)))[0]
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        raise InputError(
            f"there is no bridge {name!a} in this network namespace",
            hint=f"create it with 'ip link add {name} type bridge', or name another",
        ) from None
    if link.kind != "bridge":
        kind = f"of the kind {link.kind!a}" if link.kind else "a device"
        raise InputError(
            f"the interface {name!a} is no Linux bridge, but {kind}",
            hint="a bridge of Open vSwitch is named with --ovs",
        )
    return link
