"""The topology of a container's network: its NICs in the guest, their routes, and the host's side of each."""

from __future__ import annotations

from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import addresses_of, dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link_details import Counters, detailed_links_of, dump_detailed_links
from kata_runtime.netlink.transport import Family
from kata_runtime.network.host_devices import HostSide, host_sides
from kata_runtime.network.open_vswitch import switch_ports
from kata_runtime.network.pending_nics import leaving_names
from kata_runtime.network.route_table import ListedRoute, read_table
from kata_runtime.vmm.qemu_arguments import root_port_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_runtime.address_types import InterfaceAddress, MacAddress
    from kata_runtime.sandbox.record import NicRecord, Record
    from kata_runtime.sandbox.session import Session


class GuestNic(NamedTuple):
    """A NIC as the guest's kernel reports it; names and addresses are untrusted."""

    name: str
    mac: MacAddress
    mtu: int
    is_up: bool
    has_carrier: bool
    addresses: tuple[InterfaceAddress, ...]
    counters: Counters


class Rates(NamedTuple):
    """Traffic of a NIC per second."""

    received_bytes: float
    sent_bytes: float
    received_packets: float
    sent_packets: float


class NicView(NamedTuple):
    """A NIC with its record, guest's and host's side; ``guest`` is None if the guest has neither its MAC nor name."""

    record: NicRecord
    pci_address: str
    guest: GuestNic | None
    host: HostSide
    rates: Rates | None = None

    @property
    def addresses(self) -> tuple[InterfaceAddress, ...]:
        """The guest's addresses; link-local ones, which the kernel gives every NIC, only where they were requested."""
        found = () if self.guest is None else self.guest.addresses
        return tuple(each for each in found if not each.address.is_link_local or each in self.record.addresses)


class GuestView(NamedTuple):
    """A snapshot of the guest's network; ``seconds`` is its time by the monotonic clock."""

    seconds: float
    interfaces: tuple[GuestNic, ...]
    routes: tuple[ListedRoute, ...]


class Topology(NamedTuple):
    """The topology of a running container."""

    record: Record
    nics: tuple[NicView, ...]
    routes: tuple[ListedRoute, ...]


def look_into_guest(session: Session, seconds: float, *, routes: bool = True) -> GuestView:
    """Read interfaces with counters and addresses, and the main routing table, from the guest.

    :raise KernelError, GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    channel = session.channel()
    links, addresses = call_each(channel, Family.ROUTE, [dump_detailed_links(), dump_addresses()])
    by_index: dict[int, list[InterfaceAddress]] = {}
    for address in addresses_of(addresses):
        by_index.setdefault(address.index, []).append(address.value)
    interfaces = tuple(
        GuestNic(
            each.link.name,
            each.link.mac,
            each.link.mtu,
            each.link.is_up,
            each.link.carrier,
            tuple(by_index.get(each.link.index, ())),
            each.counters,
        )
        for each in detailed_links_of(links)
    )
    return GuestView(seconds, interfaces, tuple(read_table(channel).all_entries()) if routes else ())


def shown_nics(record: Record) -> Sequence[NicRecord]:
    """The NICs of a container, except those whose deletion was begun, in the order they were added."""
    leaving = leaving_names(record)
    return [nic for nic in record.nics if nic.name not in leaving]


def topology(record: Record, view: GuestView, ovsdb: str, before: GuestView | None = None) -> Topology:
    """Combine ``view`` with the host's side, which is read now without a lock; rates are from ``before`` to ``view``.

    Ports of Open vSwitch are looked for in the database at ``ovsdb``, and in those that the NICs were added with.

    :raise HostError, DeadlineError: this host's kernel does not answer.
    """
    nics = shown_nics(record)
    databases = [ovsdb, *(nic.port.ovsdb for nic in nics if nic.port is not None and nic.port.ovsdb)]
    sides = host_sides(nics, switch_ports(databases) if nics else ())
    return Topology(record, tuple(_view(nic, view, before, sides) for nic in nics), view.routes)


def guest_nic(view: GuestView, nic: NicRecord) -> GuestNic | None:
    """The guest's NIC of a record: found by MAC, which is unique in the sandbox, or else by name."""
    by_mac = next((each for each in view.interfaces if each.mac == nic.mac), None)
    return by_mac or next((each for each in view.interfaces if each.name == nic.name), None)


def _view(nic: NicRecord, view: GuestView, before: GuestView | None, sides: Mapping[str, HostSide]) -> NicView:
    now = guest_nic(view, nic)
    then = None if before is None else guest_nic(before, nic)
    found = None
    if before is not None and now is not None and then is not None:
        found = rates(then.counters, now.counters, view.seconds - before.seconds)
    return NicView(nic, root_port_address(nic.slot), now, sides[nic.name], found)


def rates(before: Counters, after: Counters, seconds: float) -> Rates | None:
    """The rates between two snapshots; None where counters have decreased or no time has passed."""
    pairs = (
        (before.received_bytes, after.received_bytes),
        (before.sent_bytes, after.sent_bytes),
        (before.received_packets, after.received_packets),
        (before.sent_packets, after.sent_packets),
    )
    if seconds <= 0 or any(now < then for then, now in pairs):
        return None
    return Rates(*((now - then) / seconds for then, now in pairs))
