"""The common part of endpoints that QEMU gets as descriptors of a TAP or macvtap."""

from __future__ import annotations

from kata_runtime.network.endpoint import Endpoint
from kata_runtime.vmm.hotplug import UNPLUG_SECONDS, forget_descriptors, plug_tap
from kata_runtime.vmm.tap_device import close_all, open_vhost_net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class DescriptorEndpoint(Endpoint):
    """A back end with a descriptor for each queue pair, and one of vhost-net for each where KVM is used."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace, taps: Iterable[int] = ()) -> None:
        """``taps`` are descriptors that the caller has opened already; ``close`` closes them, too."""
        super().__init__(session, nic, namespace)
        self._taps = list(taps)
        # vhost-net needs KVM to interrupt the guest.
        self._vhosts = open_vhost_net(nic.queues) if session.record.has_kvm else []

    def plug(self) -> None:
        """See ``Endpoint``."""
        plug_tap(self._session.monitor(), self._device(), self._taps, self._vhosts)

    def close(self) -> None:
        """See ``Endpoint``."""
        close_all(self._taps)
        close_all(self._vhosts)

    @classmethod
    def recover(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """See ``Endpoint``."""
        super().recover(session, nic, seconds)
        forget_descriptors(session.monitor(), nic.identity, nic.queues)
