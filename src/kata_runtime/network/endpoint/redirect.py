"""Endpoint of any Ethernet interface of a namespace: traffic control redirects packets between it and a new TAP.

This is Kata Containers' tcfilter model. The interface keeps its addresses and routes, but the namespace's own stack
gets none of the arriving packets. The TAP is deleted when QEMU ends, in whatever way, and with it its queueing
discipline and filter; ``release`` deletes those of the interface.
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

# tc preference that marks our filters; it is unlikely that others use this number.
_PREFERENCE = 27506


def tap_name(slot: int) -> str:
    """The name of the TAP for the NIC at root port ``slot``, in Kata Containers' style."""
    return f"tap{slot}_kata"


class RedirectEndpoint(DescriptorEndpoint):
    """A redirected interface, with one queue pair."""

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
        """Delete the interface's redirection; an interface or namespace that is gone is fine.

        :raise HostError: the kernel refused.
        """
        try:
            namespace = Namespace(nic.carried_from)
        except HostError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
                return []
            raise
        with namespace:
            # Another namespace may have been bound to the path meanwhile.
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
        # It may be left from a VM that ended without being deleted; the TAP of that one is gone.
        if not _clear(transport, nic.interface):
            raise ConflictError(
                f"interface {nic.device!a} has an ingress qdisc of its own", hint="delete it with 'tc qdisc'"
            ) from error
        call(transport, Family.ROUTE, add_ingress(nic.interface))
    wanted = [
        # Before it is up, when it has no addresses yet: the host's stack must never send packets to the guest.
        without_own_addresses(tap),
        set_link(tap, up=True),
        redirect_ingress(nic.interface, tap, _PREFERENCE),
        add_ingress(tap),
        redirect_ingress(tap, nic.interface, _PREFERENCE),
    ]
    call_each(transport, Family.ROUTE, wanted)


def _clear(transport: Transport, index: int) -> bool:
    """Delete the ingress qdisc of an interface if all filters in it are ours; returns whether they are."""
    try:
        filters = filters_of(call(transport, Family.ROUTE, dump_ingress_filters(index)))
        if any(found.preference != _PREFERENCE for found in filters):
            return False
        call(transport, Family.ROUTE, delete_ingress(index))
    except KernelError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise HostError(f"cannot end the redirection of interface {index}: {os.strerror(error.errno)}") from error
    return True
