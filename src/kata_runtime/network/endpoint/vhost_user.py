"""A vhost-user back end, for example of DPDK, that listens at a socket of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_runtime.errors import ConflictError
from kata_runtime.vmm.hotplug import plug_vhost_user
from kata_runtime.vmm.vhost_user import examine, refusal

if TYPE_CHECKING:
    from kata_runtime.network.request import NicRequest
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class VhostUserEndpoint:
    """Packets go between back end and guest memory; QEMU only introduces them."""

    def __init__(self, session: Session, request: NicRequest) -> None:
        """Make sure that the machine can have such a NIC, and that the back end answers.

        :raise ConflictError: the machine cannot. :raise InputError, HostError: the back end does not serve.
        """
        record = session.record
        reason = refusal(
            version=session.monitor().version(),
            accelerator=record.accelerator,
            kernel_parameters=record.kernel_parameters,
            shared_memory=record.shared_memory,
        )
        if reason is not None:
            raise ConflictError(f"this container cannot have a vhost-user NIC: {reason}")
        examine(request.vhost_user_socket, request.queues)

    def plug(self, session: Session, nic: NicRecord) -> None:
        """See ``Endpoint``."""
        plug_vhost_user(
            session.monitor(),
            identity=nic.identity,
            slot=nic.slot,
            mac=nic.mac,
            socket_path=nic.vhost_user_socket,
            queues=nic.queues,
        )

    def close(self) -> None:
        """See ``Endpoint``."""
