"""A macvtap of a namespace: packets of the interface below it that bear its MAC address go to the guest."""

from __future__ import annotations

from kata_runtime.vmm.hotplug import plug_tap
from kata_runtime.vmm.macvtap_device import open_macvtap
from kata_runtime.vmm.tap_device import close_all, open_vhost_net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class MacvtapEndpoint:
    """One queue pair."""

    def __init__(self, session: Session, device: str, namespace: Namespace) -> None:
        """Open the macvtap ``device`` in ``namespace``.

        :raise ConflictError, HostError: as ``open_macvtap``.
        """
        self._taps = [namespace.run(lambda: open_macvtap(device))]
        # vhost-net signals the guest through KVM.
        self._vhosts = open_vhost_net(0) if session.record.accelerator == "kvm" else []

    def plug(self, session: Session, nic: NicRecord) -> None:
        """See ``Endpoint``."""
        plug_tap(
            session.monitor(),
            identity=nic.identity,
            slot=nic.slot,
            mac=nic.mac,
            tap_fds=self._taps,
            vhost_fds=self._vhosts,
        )

    def close(self) -> None:
        """See ``Endpoint``."""
        close_all(self._taps)
        close_all(self._vhosts)
