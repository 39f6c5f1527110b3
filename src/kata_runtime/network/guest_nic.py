"""A NIC in the guest's kernel: reading its state, waiting for it to appear, configuring it."""

from __future__ import annotations

import errno

from kata_runtime.errors import ConflictError, InputError, KernelError, ProtocolError
from kata_runtime.fast_contextlib import contextmanager
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import add_address, addresses_of
from kata_runtime.netlink.exchange import attempt_all, call
from kata_runtime.netlink.link import RTM_NEWLINK, RTNLGRP_LINK, dump_links, links_of, set_link
from kata_runtime.netlink.message import Message, iter_messages
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kata_runtime.address_types import InterfaceAddress, MacAddress
    from kata_runtime.guest.channel import AgentChannel
    from kata_runtime.guest.subscription import Subscription
    from kata_runtime.netlink.link import Link
    from kata_runtime.network.requests import NicRequest

# From QEMU's device_add until the guest's interface appears; 60 ms are usual, also without KVM.
_ARRIVAL_SECONDS = 20.0
# Each answer about a NIC is a few KB and takes milliseconds. The lock is held and the NIC half-plugged meanwhile, so a
# stopped QEMU must be noticed earlier than with the deadline for an answer with 200,000 rules.
_ANSWER_SECONDS = 10.0


class NicState(NamedTuple):
    """An interface and its addresses."""

    name: str
    mac: MacAddress
    mtu: int
    addresses: tuple[InterfaceAddress, ...]


class Arrivals:
    """A subscription to new interfaces of the guest, with those that existed before (``links_before``)."""

    def __init__(self, subscription: Subscription, links_before: list[NicState]) -> None:
        self._subscription = subscription
        self.links_before = links_before

    def wait(self, mac: MacAddress) -> int:
        """Wait until the kernel announces an interface with this MAC address; return its index.

        :raise DeadlineError: it does not announce one.
        """
        found: list[int] = []

        def is_it(datagram: bytes) -> bool:
            found.extend(link.index for link in _links_in(datagram) if link.mac == mac)
            return bool(found)

        self._subscription.wait(is_it, _ARRIVAL_SECONDS, "the NIC's arrival in the container")
        return found[0]


@contextmanager
def watch(channel: AgentChannel) -> Iterator[Arrivals]:
    """Subscribe to new interfaces; until the block ends, the guest's answers have the deadline of NIC changes.

    :raise KernelError, GuestError, ProtocolError, DeadlineError: the guest does not answer properly.
    """
    with (
        channel.answering_within(_ANSWER_SECONDS),
        channel.subscribe(Family.ROUTE, RTNLGRP_LINK, confirmed=False) as subscription,
    ):
        # Requests are answered in order, so an answer to the dump means that the subscription is active.
        yield Arrivals(subscription, read_states(call(channel, Family.ROUTE, dump_links()), []))


def read_states(links: list[Message], addresses: list[Message]) -> list[NicState]:
    """Combine a dump of links with a dump of addresses.

    :raise ProtocolError: the bytes break the format.
    """
    by_index: dict[int, list[InterfaceAddress]] = {}
    for address in addresses_of(addresses):
        by_index.setdefault(address.index, []).append(address.value)
    return [NicState(link.name, link.mac, link.mtu, tuple(by_index.get(link.index, ()))) for link in links_of(links)]


def configure(channel: AgentChannel, index: int, request: NicRequest) -> None:
    """Set name, MTU and addresses and bring the interface up, in one message to the guest.

    :raise InputError, ConflictError, KernelError: the kernel refused one; others may have been applied.
    """
    requests = [set_link(index, name=request.name), set_link(index, mtu=request.mtu)]
    requests += [add_address(index, address.value) for address in request.addresses]
    requests.append(set_link(index, up=True))
    for place, error in attempt_all(channel, Family.ROUTE, requests).items():
        raise _explain(error, place, request) from error


def _explain(error: KernelError, place: int, request: NicRequest) -> Exception:
    reason = error.extack or str(error).rpartition(": ")[2]
    if place == 0:
        if error.errno == errno.EEXIST:
            return ConflictError(f"the container has an interface {request.name!a} already")
        return InputError(f"the container's kernel refuses the name {request.name!a}: {reason}", field="name")
    if place == 1:
        return InputError(f"the container's kernel refuses mtu {request.mtu}: {reason}", field="mtu")
    if place < 2 + len(request.addresses):
        address = request.addresses[place - 2].text
        return InputError(f"the container's kernel refuses the address {address}: {reason}", field="IPAddresses")
    return KernelError(f"set NIC {request.name!a} up in the container", error.errno, error.extack)


def _links_in(datagram: bytes) -> list[Link]:
    messages = [message for message in iter_messages(datagram) if message.type == RTM_NEWLINK]
    try:
        return links_of(messages)
    except ProtocolError:
        # An interface of another family, such as a bridge port, has other attributes.
        return []
