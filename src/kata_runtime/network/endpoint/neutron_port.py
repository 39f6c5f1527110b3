"""Endpoint of a NIC that is a port of Neutron: the port is bound to this host, its TAP is in the integration bridge."""

from __future__ import annotations

from kata_runtime import optional_packages
from kata_runtime.errors import KataError
from kata_runtime.network.endpoint import Plan, neutron_routes
from kata_runtime.network.endpoint.ovs_port import OvsEndpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.network.clients.neutron import Neutron, Port
    from kata_runtime.network.clients.ovsdb import Database
    from kata_runtime.network.endpoint.neutron_routes import Routes
    from kata_runtime.network.endpoint.ovs_port import OvsAttachment
    from kata_runtime.network.namespace import Namespace
    from kata_runtime.sandbox.record import NicRecord, PortRecord
    from kata_runtime.sandbox.session import Session


class NeutronEndpoint(OvsEndpoint):
    """A bound port of Neutron. ``release`` restores its previous binding, or unbinds it once the NIC was added."""

    def __init__(
        self,
        session: Session,
        nic: NicRecord,
        namespace: Namespace,
        database: Database,
        attachment: OvsAttachment,
        neutron: Neutron,
        port: Port,
        routes: Routes,
    ) -> None:
        """See ``OvsEndpoint``; ``port`` is as Neutron describes it, with its ``routes``, ``nic.port`` as recorded."""
        assert nic.port is not None
        super().__init__(session, nic, namespace, database, attachment)
        self._neutron = neutron
        self._port = port
        self._routes = routes
        self._host = nic.port.host

    def plug(self) -> None:
        """See ``Endpoint``."""
        # Before the TAP is plugged: OVN installs a port only on the chassis that it is bound to.
        if self._port.host != self._host:
            # Only as it was when it was read: a command on another host may be binding it, too.
            self._neutron.bind(self._port.identity, self._host, self._port.revision)
        super().plug()

    def complete(self) -> list[str]:
        """See ``Endpoint``."""
        notes = neutron_routes.add_routes(self._session.channel(), self._nic.name, self._routes)
        self._neutron.await_active(self._port.identity, self._host)
        return [*notes, *neutron_routes.server_notes(self._port), *super().complete()]

    def plan(self) -> Plan:
        """See ``Endpoint``."""
        identity = self._port.identity
        plan = super().plan()
        routes, notes = neutron_routes.missing_routes(self._session.channel(), self._routes)
        binding = []
        if self._port.host != self._host:
            instead = f" instead of {self._port.host}" if self._port.host else ""
            binding = [f"neutron: bind port {identity} to host {self._host}{instead}"]
        return Plan(
            [*binding, *plan.before],
            [*(f"guest: route {route}" for route in routes), f"neutron: wait until port {identity} is ACTIVE"],
            [*notes, *neutron_routes.server_notes(self._port), *plan.notes],
        )

    @classmethod
    def release(cls, nic: NicRecord) -> list[str]:
        """See ``Endpoint``."""
        leftovers = super().release(nic)
        if nic.port is not None:
            try:
                _unbind(nic.port)
            except KataError as error:
                mending = f"set --host {nic.port.previous_host}" if nic.port.previous_host else "unset --host"
                leftovers.append(
                    f"port {nic.port.port} stays bound to host {nic.port.host!a}: {error.message}; "
                    f"'openstack port {mending} {nic.port.port}' changes that"
                )
        return leftovers


def _unbind(port: PortRecord) -> None:
    """Restore the previous binding of the port, unless it has been bound to another host or deleted meanwhile.

    :raise HostError, DeadlineError: Neutron does not answer, or refuses.
    """
    if port.previous_host == port.host:
        return
    optional_packages.require(optional_packages.OPENSTACKSDK)
    from kata_runtime.network.clients.neutron import Cloud, Neutron

    neutron = Neutron(Cloud(port.cloud, port.clouds_file))
    if neutron.host_of(port.port) == port.host:
        neutron.bind(port.port, port.previous_host)
