"""Kinds of back ends that a NIC can have on the host: one module each, all behind ``Endpoint``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kata_runtime.network.request import NicRequest
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


def open_endpoint(session: Session, request: NicRequest) -> Endpoint:
    """The back end that ``request`` names, checked before the machine is touched.

    :raise InputError, ConflictError, HostError: it cannot serve.
    """
    if request.vhost_user_socket:
        from kata_runtime.network.endpoint.vhost_user import VhostUserEndpoint

        return VhostUserEndpoint(session, request)
    from kata_runtime.network.endpoint.tap import TapEndpoint

    return TapEndpoint(session, request)
