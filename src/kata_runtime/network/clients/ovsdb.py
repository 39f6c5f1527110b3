"""Client of Open vSwitch's database (RFC 7047, ovs-vswitchd.conf.db(5)), with OpenStack's ovsdbapp.

Every call has a deadline of seconds, and errors name the database.
"""

from __future__ import annotations

import os
from logging import NullHandler, getLogger

from ovs.db.idl import Idl
from ovsdbapp.backend.ovs_idl import idlutils
from ovsdbapp.backend.ovs_idl.connection import Connection
from ovsdbapp.backend.ovs_idl.event import RowEventHandler, WaitEvent
from ovsdbapp.backend.ovs_idl.transaction import Transaction
from ovsdbapp.schema.open_vswitch.impl_idl import OvsdbIdl, OvsVsctlTransaction

from kata_runtime import operation_log
from kata_runtime.errors import DeadlineError, HostError, InputError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.network.clients.bounded import call_within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

_SHOWN_CHARACTERS = 200
_PATH_BYTES = 107  # sun_path of unix(7), without its terminating NUL
_ANSWER_SECONDS = 5.0
# Until a port is in use: ovs-vswitchd takes some 10 ms, ovn-controller 25, and longer with 10,000 ports in OVN.
_TAKEN_UP_SECONDS = 10.0
_INSTALLED_SECONDS = 30.0
_COLUMNS = {
    "Open_vSwitch": ["bridges", "cur_cfg", "external_ids", "next_cfg"],
    "Bridge": ["datapath_type", "name", "ports"],
    "Port": ["interfaces", "name"],
    "Interface": ["error", "external_ids", "mtu", "name", "ofport", "type"],
}


class Bridge(NamedTuple):
    """A bridge; ``least_mtu`` is the least MTU of its ports, except Open vSwitch's internal ones, or 0 without any."""

    name: str
    datapath_type: str
    least_mtu: int


class PluggedInterface(NamedTuple):
    """An interface of Open vSwitch; ``container`` is the container of the NIC, empty for other programs' interfaces.

    ``is_dead`` is whether ovs-vswitchd finds no device for it.
    """

    name: str
    container: str
    is_dead: bool


class _NotifyingIdl(Idl):
    """A replica of the database that reports changes to a handler."""

    def __init__(self, address: str, helper: Any) -> None:
        super().__init__(address, helper)
        self.handler = RowEventHandler()

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        self.handler.notify(event, row, updates)


class _Transaction(OvsVsctlTransaction):
    def post_commit(self, txn: Any) -> None:
        # Does not wait for ovs-vswitchd, as OvsVsctlTransaction would: _InterfaceReady does, and also waits for OVN.
        Transaction.post_commit(self, txn)


class _Api(OvsdbIdl):
    # Overrides a class property, which all connections of a process would share.
    ovsdb_connection: Any = None

    def create_transaction(self, *_: object, **__: object) -> Any:
        return _Transaction(self, self.ovsdb_connection, check_error=True, log_errors=False)


class _InterfaceReady(WaitEvent):
    """The event that ovs-vswitchd, and OVN where required, have an interface in use, or have refused it."""

    def __init__(self, name: str, *, by_ovn: bool, seconds: float) -> None:
        super().__init__((self.ROW_CREATE, self.ROW_UPDATE), "Interface", None, timeout=seconds)
        self.event_name = f"{name} is ready"
        self._name = name
        self._by_ovn = by_ovn

    def match_fn(self, _event: str, row: Any, _old: Any) -> bool:
        if row.name != self._name:
            return False
        is_ready = not self._by_ovn or row.external_ids.get("ovn-installed") == "true"
        return bool(row.error or (row.ofport and row.ofport[0] > 0 and is_ready))


class Database:
    """A connection to the database at ``address`` (ovsdb(7), "Active OVSDB Connection"); a context manager."""

    def __init__(self, address: str) -> None:
        """Connect and read the tables.

        :raise InputError: it is no such address.
        :raise HostError, DeadlineError: it cannot be reached, or does not answer.
        """
        _check(address)
        self.address = address
        self._api: Any = self._bounded(lambda: _connect(address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._api.ovsdb_connection.stop(_ANSWER_SECONDS)

    def external_ids(self) -> Mapping[str, str]:
        """The host's settings in table Open_vSwitch, such as ``hostname``, ``ovn-bridge``, ``ovn-encap-ip``."""
        return self._read(lambda: dict(next(iter(self._api.tables["Open_vSwitch"].rows.values())).external_ids))

    def find_bridge(self, name: str) -> Bridge | None:
        """The bridge of this name."""
        return self._read(lambda: self._bridge(name))

    def find_interface(self, iface_id: str) -> PluggedInterface | None:
        """The interface that has this iface-id."""

        def find() -> PluggedInterface | None:
            for row in self._api.tables["Interface"].rows.values():
                if row.external_ids.get("iface-id") == iface_id:
                    return PluggedInterface(
                        row.name,
                        row.external_ids.get("kata-container", ""),
                        bool(row.error or (row.ofport and not row.mtu)),
                    )
            return None

        return self._read(find)

    def plug(self, bridge: str, tap: str, external_ids: Mapping[str, str], *, by_ovn: bool) -> None:
        """Add TAP ``tap`` to ``bridge`` and wait until ovs-vswitchd, and with ``by_ovn`` OVN, have it in use.

        :raise HostError, DeadlineError: they have not; the port stays in the database.
        """
        seconds = _INSTALLED_SECONDS if by_ovn else _TAKEN_UP_SECONDS
        ready = _InterfaceReady(tap, by_ovn=by_ovn, seconds=seconds)
        handler = self._api.idl.handler
        handler.watch_event(ready)
        with operation_log.measured("Open vSwitch: add port", bridge=bridge, port=tap, by_ovn=by_ovn):
            # A leftover of this name is from a container of the same ID, deleted while the database did not answer.
            self._commit(
                self._api.del_port(tap, if_exists=True),
                self._api.add_port(bridge, tap, may_exist=False),
                self._api.db_set("Interface", tap, ("external_ids", dict(external_ids))),
            )
            if not ready.wait():
                raise self._unsettled(tap, seconds, by_ovn=by_ovn)
        error = self._read(lambda: self._interface(tap).error)
        if error:
            raise HostError(f"Open vSwitch cannot use the TAP {tap!a}: {error[0][:200]}")

    def unplug(self, tap: str) -> None:
        """Delete the port of TAP ``tap`` from its bridge, if there is one.

        :raise HostError, DeadlineError: the database failed.
        """
        with operation_log.measured("Open vSwitch: delete port", port=tap):
            self._commit(self._api.del_port(tap, if_exists=True))

    def _bridge(self, name: str) -> Bridge | None:
        for row in self._api.tables["Bridge"].rows.values():
            if row.name == name:
                interfaces = [interface for port in row.ports for interface in port.interfaces]
                mtus = [mtu for interface in interfaces if interface.type in ("", "system") for mtu in interface.mtu]
                return Bridge(name, row.datapath_type, min(mtus, default=0))
        return None

    def _interface(self, name: str) -> Any:
        return next(row for row in self._api.tables["Interface"].rows.values() if row.name == name)

    def _unsettled(self, tap: str, seconds: float, *, by_ovn: bool) -> DeadlineError:
        if by_ovn and self._read(lambda: self._interface(tap).ofport):
            return DeadlineError(
                f"the installation of TAP {tap!a} by OVN",
                seconds,
                hint="is there a port of this ID in OVN for this host, and does ovn-controller run?",
            )
        return DeadlineError(f"Open vSwitch's take-up of TAP {tap!a}", seconds, hint="does ovs-vswitchd run?")

    def _commit(self, *commands: Any) -> None:
        def commit() -> None:
            with self._api.transaction() as transaction:
                for command in commands:
                    transaction.add(command)

        self._bounded(commit)

    def _read(self, function: Callable[[], T]) -> T:
        # The connection's thread holds this lock while it changes rows.
        with self._api.ovsdb_connection.lock:
            return function()

    def _bounded(self, function: Callable[[], T]) -> T:
        try:
            return call_within(_ANSWER_SECONDS, self.address, function)
        except TimeoutError as error:
            raise DeadlineError(
                f"the answer of Open vSwitch's database at {self.address!a}", _ANSWER_SECONDS, hint=_HINT
            ) from error
        except Exception as error:
            # Most errors of ovsdbapp have no class of their own.
            raise HostError(
                f"Open vSwitch's database at {self.address!a} failed: {str(error)[:200]}", hint=_HINT
            ) from error


_HINT = "is ovsdb-server running there? [network] ovsdb in the configuration, or --ovsdb, says where it is"


def _check(address: str) -> None:
    """Refuse what the library would not explain; it would try a longer path until it has no stack left."""
    scheme, _, place = address.partition(":")
    if scheme not in ("unix", "tcp", "ssl") or not place:
        raise InputError(
            f"{address[:_SHOWN_CHARACTERS]!a} is no address of Open vSwitch's database",
            hint="unix:PATH, tcp:HOST:PORT and ssl:HOST:PORT are",
        )
    if scheme == "unix" and len(os.fsencode(place)) > _PATH_BYTES:
        raise InputError(
            f"the socket of Open vSwitch's database {place[:_SHOWN_CHARACTERS]!a} has a path of more than"
            f" {_PATH_BYTES} bytes",
            hint="give a shorter one",
        )


def _connect(address: str) -> _Api:
    for name in ("ovs", "ovsdbapp"):
        # Without a handler, Python would print the libraries' log to standard error; it only repeats their exceptions.
        getLogger(name).addHandler(NullHandler())
    helper = idlutils.get_schema_helper(address, "Open_vSwitch")
    for table, columns in _COLUMNS.items():
        helper.register_columns(table, columns)
    return _Api(Connection(_NotifyingIdl(address, helper), timeout=_ANSWER_SECONDS))
