"""A TAP of this host, opened here and handed to QEMU as descriptors."""

from __future__ import annotations

from kata_runtime.vmm.hotplug import plug_tap
from kata_runtime.vmm.tap_device import close_all, open_tap, open_vhost_net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class TapEndpoint:
    """One descriptor of the TAP per queue pair, and one of vhost-net where the host has it."""

    def __init__(self, session: Session, request: NicRequest, namespace: Namespace | None = None) -> None:
        """Open the TAP in ``namespace``, or in that of this process.

        :raise InputError, ConflictError, HostError: as ``open_tap``.
        """
        if namespace is None:
            self._taps = open_tap(request.device, request.queues)
        else:
            self._taps = namespace.run(lambda: open_tap(request.device, request.queues))
        # vhost-net signals the guest through KVM.
        self._vhosts = open_vhost_net(request.queues) if session.record.accelerator == "kvm" else []

    def plug(self, session: Session, nic: NicRecord) -> None:
        """See ``Endpoint``."""
        plug_tap(
            session.monitor(),
            identity=nic.identity,
            slot=nic.slot,
            mac=nic.mac,
            tap_fds=self._taps,
            vhost_fds=self._vhosts,
            queues=nic.queues,
        )

    def close(self) -> None:
        """See ``Endpoint``."""
        close_all(self._taps)
        close_all(self._vhosts)
