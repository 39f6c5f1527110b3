"""Any Ethernet interface of a namespace: a TAP beside it, and every packet moved between both by traffic control.

As in Kata Containers' tcfilter model. The interface keeps its addresses and routes, but the namespace's own stack
sees nothing of what arrives. The TAP belongs to QEMU alone: it goes with it, however that ends, and so do its
queueing discipline and filter; those of the interface are taken away by ``release``.
"""

from __future__ import annotations

import errno
import os

from kata_runtime.errors import ConflictError, HostError, KernelError
from kata_runtime.netlink.exchange import call, call_each
from kata_runtime.netlink.link import get_link, links_of, set_link, without_own_addresses
from kata_runtime.netlink.traffic import (
    add_ingress,
    delete_ingress,
    dump_ingress_filters,
    filters_of,
    redirect_ingress,
)
from kata_runtime.netlink.transport import Family
from kata_runtime.network.endpoint.descriptors import DescriptorEndpoint
from kata_runtime.network.namespace import Namespace
from kata_runtime.vmm.tap_device import create_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.netlink.transport import Transport
    from kata_runtime.sandbox.record import NicRecord

# Which filter is ours; others have no reason to choose this number.
_PREFERENCE = 27506


def tap_name(slot: int) -> str:
    """The TAP in the namespace for the NIC at root port ``slot``; named as Kata Containers does."""
    return f"tap{slot}_kata"


class RedirectEndpoint(DescriptorEndpoint):
    """One queue pair; what ``plug`` makes in the namespace ``release`` takes away."""

    def plug(self) -> None:
        """See ``Endpoint``.

        :raise ConflictError: the interface has a queueing discipline for arriving packets already.
        """
        nic = self._nic
        name = tap_name(nic.slot)
        self._taps += self._namespace.run(lambda: create_tap(name))
        with self._namespace.transport() as transport:
            try:
                _connect(transport, nic, links_of(call(transport, Family.ROUTE, get_link(name)))[0].index)
            except KernelError as error:
                raise HostError(f"cannot redirect {nic.device!a} to the VM: {error}", errno=error.errno) from error
        super().plug()

    @classmethod
    def release(cls, nic: NicRecord) -> list[str]:
        """Take away what redirects the packets of the interface; an interface or namespace that is gone is fine.

        :raise HostError: the kernel refused.
        """
        try:
            namespace = Namespace(nic.carried_from)
        except HostError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
                return []
            raise
        with namespace:
            # The path can have come to mean another namespace.
            if namespace.identity == nic.namespace:
                with namespace.transport() as transport:
                    _clear(transport, nic.interface)
        return []


def _connect(transport: Transport, nic: NicRecord, tap: int) -> None:
    try:
        call(transport, Family.ROUTE, add_ingress(nic.interface))
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        # Of a VM that ended without being deleted; its TAP is gone.
        if not _clear(transport, nic.interface):
            raise ConflictError(
                f"interface {nic.device!a} has an ingress qdisc of its own", hint="delete it with 'tc qdisc'"
            ) from error
        call(transport, Family.ROUTE, add_ingress(nic.interface))
    wanted = [
        # While it is down it makes no addresses; it must never send packets of its own to the guest.
        without_own_addresses(tap),
        set_link(tap, up=True),
        redirect_ingress(nic.interface, tap, _PREFERENCE),
        add_ingress(tap),
        redirect_ingress(tap, nic.interface, _PREFERENCE),
    ]
    call_each(transport, Family.ROUTE, wanted)


def _clear(transport: Transport, index: int) -> bool:
    """Delete the ingress qdisc of an interface when all filters in it are ours; whether that is so."""
    try:
        filters = filters_of(call(transport, Family.ROUTE, dump_ingress_filters(index)))
        if any(found.preference != _PREFERENCE for found in filters):
            return False
        call(transport, Family.ROUTE, delete_ingress(index))
    except KernelError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise HostError(f"cannot end the redirection of interface {index}: {os.strerror(error.errno)}") from error
    return True
