"""Endpoint of a NIC in a bridge of Open vSwitch, by a TAP of its own."""

from __future__ import annotations

from kata_runtime import optional_packages
from kata_runtime.errors import KataError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.endpoint import Plan
from kata_runtime.network.endpoint.created_tap import CreatedTapEndpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.netlink.local import LocalTransport
    from kata_runtime.network.clients.ovsdb import Database
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord
    from kata_runtime.sandbox.session import Session


class OvsAttachment(NamedTuple):
    """How the TAP is added to Open vSwitch.

    ``by_ovn`` is whether to wait until OVN has installed the port. ``leftover`` is an interface with the same
    ``iface_id`` that is deleted before, since its NIC is gone. ``note`` is for the user.
    """

    iface_id: str
    by_ovn: bool
    leftover: str
    note: str


class OvsEndpoint(CreatedTapEndpoint):
    """A TAP in a bridge of Open vSwitch, whose port in the database outlives the TAP: ``release`` deletes it."""

    def __init__(
        self, session: Session, nic: NicRecord, namespace: Namespace, database: Database, attachment: OvsAttachment
    ) -> None:
        """See ``Endpoint``."""
        super().__init__(session, nic, namespace)
        self._database = database
        self._attachment = attachment

    def plug(self) -> None:
        """See ``Endpoint``."""
        # Before the TAP exists, which can have the same name: ovs-vswitchd would open it for the leftover.
        if self._attachment.leftover:
            self._database.unplug(self._attachment.leftover)
        super().plug()

    def complete(self) -> list[str]:
        """See ``Endpoint``."""
        return [self._attachment.note]

    def plan(self) -> Plan:
        """See ``Endpoint``."""
        port, nic = self._attachment, self._nic
        assert nic.port is not None
        steps = [f"openvswitch: delete port {port.leftover}, whose NIC is gone"] if port.leftover else []
        steps += super().plan().before
        steps.append(
            f"openvswitch: add port {nic.device} to bridge {nic.port.bridge}"
            + (f", iface-id {port.iface_id}" if port.iface_id else "")
        )
        if port.by_ovn:
            steps.append(f"ovn: wait until ovn-controller has installed port {port.iface_id}")
        return Plan(steps, [], [port.note] if port.note else [])

    def _join(self, transport: LocalTransport, index: int) -> None:
        del transport, index
        port = self._attachment
        nic, container_id = self._nic, self._session.container_id
        assert nic.port is not None
        ids = {
            "attached-mac": str(nic.mac),
            "kata-container": container_id,
            "iface-status": "active",
            "vm-uuid": container_id,
        }
        if port.iface_id:
            ids["iface-id"] = port.iface_id
        self._database.plug(nic.port.bridge, nic.device, ids, by_ovn=port.by_ovn)

    @classmethod
    def release(cls, nic: NicRecord) -> list[str]:
        """See ``Endpoint``."""
        if nic.port is None:
            return []
        try:
            optional_packages.require(optional_packages.OVSDBAPP)
            from kata_runtime.network.clients.ovsdb import Database

            with Database(nic.port.ovsdb) as database:
                database.unplug(nic.device)
        except KataError as error:
            what = f"port {nic.device!a} stays in bridge {nic.port.bridge!a} of Open vSwitch: {error.message}"
            return [f"{what}; 'ovs-vsctl --if-exists del-port {nic.device}' deletes it"]
        return []
