"""Endpoint of a NIC in a bridge of Open vSwitch, by a TAP of its own."""

from __future__ import annotations

from kata_runtime import optional_packages
from kata_runtime.errors import KataError
from kata_runtime.network.endpoint.created_tap import CreatedTapEndpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.netlink.local import LocalTransport
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.network.ports.ovsdb import Database
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class OvsEndpoint(CreatedTapEndpoint):
    """A TAP in a bridge of Open vSwitch, whose port in the database outlives the TAP: ``release`` deletes it."""

    def __init__(
        self, session: Session, nic: NicRecord, namespace: Namespace, database: Database, *, iface_id: str, by_ovn: bool
    ) -> None:
        """``by_ovn`` is whether to wait until OVN has installed the port."""
        super().__init__(session, nic, namespace)
        self._database = database
        self._iface_id = iface_id
        self._by_ovn = by_ovn

    def _join(self, transport: LocalTransport, index: int) -> None:
        del transport, index
        nic, container_id = self._nic, self._session.container_id
        assert nic.port is not None
        ids = {
            "attached-mac": str(nic.mac),
            "kata-container": container_id,
            "iface-status": "active",
            "vm-uuid": container_id,
        }
        if self._iface_id:
            ids["iface-id"] = self._iface_id
        self._database.plug(nic.port.bridge, nic.device, ids, by_ovn=self._by_ovn)

    @classmethod
    def release(cls, nic: NicRecord) -> list[str]:
        """See ``Endpoint``."""
        if nic.port is None:
            return []
        try:
            optional_packages.require(optional_packages.OVSDBAPP)
            from kata_runtime.network.ports.ovsdb import Database

            with Database(nic.port.ovsdb) as database:
                database.unplug(nic.device)
        except KataError as error:
            what = f"port {nic.device!a} stays in bridge {nic.port.bridge!a} of Open vSwitch: {error.message}"
            return [f"{what}; 'ovs-vsctl --if-exists del-port {nic.device}' deletes it"]
        return []
