"""Endpoint of an existing TAP of this host, which is opened here and passed to QEMU as descriptors."""

from __future__ import annotations

from kata_runtime.network.endpoint.descriptors import DescriptorEndpoint
from kata_runtime.vmm.tap_device import check_tap, open_tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class TapEndpoint(DescriptorEndpoint):
    """An existing TAP, which is kept when the NIC is deleted."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """See ``Endpoint``.

        :raise InputError, ConflictError, HostError: as ``open_tap``.
        """
        super().__init__(session, nic, namespace, namespace.run(lambda: open_tap(nic.device, nic.queues)))

    @classmethod
    def check(cls, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """See ``Endpoint``."""
        del session
        namespace.run(lambda: check_tap(nic.device, nic.queues))
