"""Endpoint of a vhost-user back end, for example of DPDK, that listens on a socket of this host."""

from __future__ import annotations

import os

from kata_runtime.errors import ConflictError
from kata_runtime.network.endpoint import Endpoint
from kata_runtime.vmm.hotplug import plug_vhost_user
from kata_runtime.vmm.vhost_user_socket import examine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class VhostUserEndpoint(Endpoint):
    """A vhost-user back end. It exchanges packets with the guest through shared memory; QEMU only sets that up."""

    def __init__(self, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """Make sure that the VM's memory is shared, and that the back end answers.

        :raise ConflictError: the memory is not shared.
        :raise InputError, HostError, DeadlineError: the back end cannot be used.
        """
        super().__init__(session, nic, namespace)
        self.check(session, nic, namespace)

    @classmethod
    def check(cls, session: Session, nic: NicRecord, namespace: Namespace) -> None:
        """See ``Endpoint``; the back end is connected to and asked for its features, which it forgets."""
        del namespace
        if not session.record.shared_memory:
            raise ConflictError(
                f"container {session.container_id} cannot have a vhost-user NIC: its memory is not shared",
                hint="start it with shared_memory = true in the configuration",
            )
        examine(nic.vhost_user_socket, nic.queues, user=os.stat(f"/proc/{session.record.pid}").st_uid)

    def plug(self) -> None:
        """See ``Endpoint``."""
        socket_path, msix = self._nic.vhost_user_socket, self._session.record.has_kvm
        plug_vhost_user(self._session.monitor(), self._device(), socket_path, msix=msix)
