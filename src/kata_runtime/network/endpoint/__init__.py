"""Kinds of back ends that a NIC can have on the host: one class each, all of them ``Endpoint``.

The record of a NIC names its kind, so whoever takes the NIC out, or finds it half-made, does so in the same way.
"""

from __future__ import annotations

from kata_runtime.sandbox.record import EndpointKind
from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class Endpoint:
    """A back end that was found to be usable. To undo it the NIC's record is enough: those are class methods."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """Check and open what ``nic`` names in ``namespace``; QEMU is not touched.

        :raise InputError, ConflictError, HostError, DeadlineError: it cannot serve.
        """
        self._session = session
        self._nic = nic
        self._namespace = namespace

    def plug(self) -> None:
        """Make it a NIC of the running machine; after a failure QEMU is as it was.

        :raise ConflictError, QemuError, DeadlineError, HostError: it cannot be plugged.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what the command holds of it; a plugged NIC keeps its own."""

    @classmethod
    def unplug(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """Take a NIC out of the running machine, and away what was made for it on the host; missing parts are fine.

        The user is told of what stays elsewhere, since who holds it does not answer.

        :raise DeadlineError: the guest does not let go of it within ``seconds``.
        :raise QemuError, HostError: QEMU or the host refused.
        """
        from kata_runtime.vmm import hotplug

        hotplug.unplug(session.monitor(), nic.identity, seconds)
        for leftover in cls.release(nic):
            session.lock_wait.notify(leftover)

    @classmethod
    def recover(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """Undo the interrupted plugging of a NIC.

        :raise DeadlineError, QemuError, HostError: as ``unplug``.
        """
        cls.unplug(session, nic, seconds)

    @classmethod
    def release(cls, nic: NicRecord) -> list[str]:
        """Take away what ``plug`` made on the host for a NIC that is no longer plugged; nothing, for most kinds.

        A line is returned for each thing that stays elsewhere, since who holds it does not answer.

        :raise HostError: the host refused.
        """
        del nic
        return []


def kind_of(request: NicRequest) -> EndpointKind:
    """The kind of back end that a request names."""
    return EndpointKind.VHOST_USER if request.vhost_user_socket else EndpointKind.TAP


def endpoint_class(kind: EndpointKind) -> type[Endpoint]:
    """The class of a kind, which is imported only now."""
    match kind:
        case EndpointKind.TAP:
            from kata_runtime.network.endpoint.tap import TapEndpoint

            return TapEndpoint
        case EndpointKind.VHOST_USER:
            from kata_runtime.network.endpoint.vhost_user import VhostUserEndpoint

            return VhostUserEndpoint
        case EndpointKind.MACVTAP:
            from kata_runtime.network.endpoint.macvtap import MacvtapEndpoint

            return MacvtapEndpoint
        case EndpointKind.REDIRECT:
            from kata_runtime.network.endpoint.redirect import RedirectEndpoint

            return RedirectEndpoint
        case EndpointKind.BRIDGE:
            from kata_runtime.network.endpoint.bridge_port import BridgeEndpoint

            return BridgeEndpoint
        case EndpointKind.OVS:
            from kata_runtime.network.endpoint.ovs_port import OvsEndpoint

            return OvsEndpoint
        case EndpointKind.NEUTRON:
            from kata_runtime.network.endpoint.neutron_port import NeutronEndpoint

            return NeutronEndpoint
