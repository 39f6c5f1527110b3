"""Back ends that a NIC can have on the host: a subclass of ``Endpoint`` for each kind.

The kind is stored in the NIC's record, by which later commands find the class to unplug or recover the NIC with.
"""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple
from kata_runtime.sandbox.record import EndpointKind
from kata_runtime.vmm.hotplug import UNPLUG_SECONDS, NicDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class Plan(NamedTuple):
    """What ``plug`` would do before it plugs the NIC into QEMU, what ``complete`` would do, and its notes."""

    before: list[str]
    after: list[str]
    notes: list[str]


class Endpoint:
    """A back end that was checked and opened. The methods to undo it are class methods: they need only the record."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """Check and open what ``nic`` names in ``namespace``; QEMU is not touched.

        :raise InputError, ConflictError, HostError, DeadlineError: it cannot be used.
        """
        self._session = session
        self._nic = nic
        self._namespace = namespace

    @classmethod
    def check(cls, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """Do the checks of the constructor that change nothing anywhere; for dry runs of add-iface.

        :raise InputError, ConflictError, HostError, DeadlineError: it cannot serve.
        """
        raise NotImplementedError

    def plug(self) -> None:
        """Plug the NIC into the running VM; after a failure QEMU is as it was.

        :raise ConflictError, QemuError, DeadlineError, HostError: it cannot be plugged.
        """
        raise NotImplementedError

    def complete(self) -> list[str]:
        """Do what remains when the NIC is configured in the guest; returns notes for the user.

        :raise HostError, GuestError, KernelError, DeadlineError: it failed.
        """
        return []

    def plan(self) -> Plan:
        """The steps of ``plug`` and ``complete`` for a dry run; only reads.

        :raise HostError, GuestError, KernelError, DeadlineError: something cannot be read.
        """
        return Plan([], [], [])

    def _device(self) -> NicDevice:
        nic = self._nic
        return NicDevice(nic.identity, nic.slot, nic.mac, nic.queues, nic.offload)

    def close(self) -> None:
        """Close this process's descriptors of the back end; QEMU has its own."""

    @classmethod
    def unplug(cls, session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
        """Unplug a NIC from the running VM, and ``release`` what was created for it here; missing parts are fine.

        The user is notified of leftovers in services that do not answer.

        :raise DeadlineError: the guest does not release it within ``seconds``.
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
        """Delete what ``plug`` created on the host for a NIC that is no longer plugged; most kinds create nothing.

        Returns a line for each leftover in a service that does not answer, such as Neutron.

        :raise HostError: the host refused.
        """
        del nic
        return []


def kind_of(request: NicRequest) -> EndpointKind:
    """The kind of back end that a request of add-iface needs."""
    return EndpointKind.VHOST_USER if request.vhost_user_socket else EndpointKind.TAP


def endpoint_class(kind: EndpointKind) -> type[Endpoint]:
    """The class for a kind; its module is imported on demand."""
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
