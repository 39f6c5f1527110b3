"""Kinds of back ends that a NIC can have on the host: one module each, all behind ``Endpoint``.

The record of a NIC names its kind, so whoever takes the NIC out, or finds it half-made, does so in the same way.
"""

from __future__ import annotations

from kata_runtime.sandbox.record import EndpointKind
from kata_runtime.vmm.hotplug import UNPLUG_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from kata_runtime.network.requests import NicRequest
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session

    class Endpoint(Protocol):
        """One back end, found to be usable."""

        def plug(self, session: Session, nic: NicRecord) -> None:
            """Make it a NIC of the running machine; after a failure QEMU is as it was.

            :raise QemuError, DeadlineError, HostError: it cannot be plugged.
            """

        def close(self) -> None:
            """Release what the command holds of it; a plugged NIC keeps its own."""


def kind_of(request: NicRequest) -> EndpointKind:
    """The kind of back end that a request names."""
    return EndpointKind.VHOST_USER if request.vhost_user_socket else EndpointKind.TAP


def open_endpoint(session: Session, request: NicRequest) -> Endpoint:
    """The back end that ``request`` names, checked before the machine is touched.

    :raise InputError, ConflictError, HostError: it cannot serve.
    """
    if kind_of(request) == EndpointKind.VHOST_USER:
        from kata_runtime.network.endpoint.vhost_user import VhostUserEndpoint

        return VhostUserEndpoint(session, request)
    from kata_runtime.network.endpoint.tap import TapEndpoint

    return TapEndpoint(session, request)


def unplug(session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
    """Take a NIC out of the running machine, and away what was made for it on the host; missing parts are fine.

    :raise DeadlineError: the guest does not let go of it within ``seconds``.
    :raise QemuError, HostError: QEMU or the host refused.
    """
    from kata_runtime.vmm import hotplug

    hotplug.unplug(session.monitor(), nic.identity, seconds)
    release(nic)


def recover(session: Session, nic: NicRecord, seconds: float = UNPLUG_SECONDS) -> None:
    """Undo the interrupted plugging of a NIC.

    :raise DeadlineError, QemuError, HostError: as ``unplug``.
    """
    from kata_runtime.vmm.hotplug import forget_descriptors

    unplug(session, nic, seconds)
    forget_descriptors(session.monitor(), nic.identity, nic.queues)


def release(nic: NicRecord) -> None:
    """Take away what was made on the host for a NIC that is no longer plugged.

    :raise HostError: the host refused.
    """
    if nic.kind == EndpointKind.REDIRECT:
        from kata_runtime.network.endpoint.redirect import remove_redirection

        remove_redirection(nic)
