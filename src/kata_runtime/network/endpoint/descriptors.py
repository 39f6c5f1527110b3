"""The common part of endpoints that QEMU gets as descriptors of a TAP or macvtap."""

from __future__ import annotations

from kata_runtime.network.endpoint import Endpoint
from kata_runtime.vmm.hotplug import UNPLUG_SECONDS, forget_descriptors, plug_tap, remove_backend
from kata_runtime.vmm.tap_device import close_all, held_taps, open_vhost_net, require_attached

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
        # With several queues one that is gone would end QEMU, as in ``unplug``.
        require_attached(self._nic.device, self._taps)
        plug_tap(self._session.monitor(), self._device(), self._taps, self._vhosts)

    def close(self) -> None:
        """See ``Endpoint``."""
        close_all(self._taps)
        close_all(self._vhosts)

    @classmethod
    def unplug(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """See ``Endpoint``."""
        if nic.queues > 1:
            taps = held_taps(session.record.pid)
            if taps is not None and nic.device not in taps:
                # When the guest lets the device go, QEMU detaches the queues, and ends by an assertion when the host
                # has deleted the TAP (7.2, hw/net/virtio-net.c: virtio_net_set_queue_pairs); not without a back end.
                remove_backend(session.monitor(), nic.identity)
        super().unplug(session, nic, seconds)

    @classmethod
    def recover(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """See ``Endpoint``."""
        super().recover(session, nic, seconds)
        forget_descriptors(session.monitor(), nic.identity, nic.queues)
