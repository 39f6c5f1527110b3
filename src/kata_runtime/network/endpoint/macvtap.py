"""Endpoint of a macvtap in a namespace: the guest gets the packets of the lower interface that have its MAC address."""

from __future__ import annotations

from kata_runtime.network.endpoint.descriptors import DescriptorEndpoint
from kata_runtime.vmm.macvtap_device import open_macvtap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class MacvtapEndpoint(DescriptorEndpoint):
    """An existing macvtap, with one queue pair."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """See ``Endpoint``.

        :raise ConflictError, HostError: as ``open_macvtap``.
        """
        super().__init__(session, nic, namespace, namespace.run(lambda: [open_macvtap(nic.device)]))
