"""DHCP (RFC 2131) for a NIC: busybox's client in the guest, which keeps running to renew the lease.

The host never parses the lease: it reads the resulting address from the guest's kernel, as for any NIC.
"""

from __future__ import annotations

from _socket import AF_INET

from kata_runtime.errors import GuestError, KataError
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.netlink.address import addresses_of, dump_addresses
from kata_runtime.netlink.exchange import call_each
from kata_runtime.netlink.link import get_link, links_of
from kata_runtime.netlink.transport import Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata_runtime.address_types import InterfaceAddress
    from kata_runtime.guest.channel import AgentChannel

# DISCOVER packets, one a second; the first is often lost while a switch takes up the new port.
_ATTEMPTS = 10
_SECONDS = _ATTEMPTS + 5.0
_STOP_SECONDS = 5.0

# Called by the client with the event as $1 and the lease in the environment (busybox, examples/udhcp). A lease equal to
# the previous one changes nothing. Classless routes replace the router option (RFC 3442); a default route through
# another interface is kept. The MTU is only ever lowered: the NIC was added with the largest that it may have.
_HOOK = """\
#!/bin/sh
lease=/run/kata-dhcp/$interface.lease
forget() {
    [ ! -e "$lease" ] || ip address delete "$(head -n 1 "$lease")" dev "$interface" 2>/dev/null
    rm -f "$lease"
}
route() {
    case "$1" in 0.0.0.0/0) set -- default "$2" ;; esac
    case "$2" in
    0.0.0.0) ip route add "$1" dev "$interface" ;;
    *) ip route add "$1" via "$2" dev "$interface" ;;
    esac 2>/dev/null
}
case "$1" in
deconfig) forget ;;
bound | renew)
    new="$ip/$mask
$staticroutes
$router
$mtu"
    [ "$new" != "$(cat "$lease" 2>/dev/null)" ] || exit 0
    forget
    current=$(cat "/sys/class/net/$interface/mtu")
    [ "${mtu:-$current}" -ge "$current" ] || ip link set "$interface" mtu "$mtu"
    ip address add "$ip/$mask" broadcast + dev "$interface" || exit 1
    printf '%s\\n' "$new" >"$lease"
    if [ -n "$staticroutes" ]; then
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            route "$1" "$2"
            shift 2
        done
    elif [ -n "$router" ]; then
        route default "${router%% *}"
    fi
    ;;
esac
exit 0
"""
# Once it has an address, udhcpc moves to the background and the command exits with 0.
_START = f"""\
umask 077
mkdir -p /run/kata-dhcp && cat >/run/kata-dhcp/hook && chmod 700 /run/kata-dhcp/hook || exit 125
exec udhcpc -i "$1" -s /run/kata-dhcp/hook -p "/run/kata-dhcp/$1.pid" -n -t {_ATTEMPTS} -T 1 -O staticroutes -O mtu
"""
_STOP = """\
cd /run/kata-dhcp 2>/dev/null || exit 0
pid=$(cat "$1.pid" 2>/dev/null)
[ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != udhcpc ] || kill "$pid"
rm -f "$1.pid" "$1.lease"
"""


class Lease(NamedTuple):
    """The result of DHCP: addresses, and the MTU, which may be less than requested."""

    addresses: tuple[InterfaceAddress, ...]
    mtu: int


def start(channel: AgentChannel, index: int, name: str) -> Lease:
    """Start the client for interface ``name``, which must be up, and wait for its first lease.

    :raise GuestError: no server offered one. :raise KernelError, ProtocolError, DeadlineError: the guest failed.
    """
    before = _addresses(channel, index)
    done = channel.run(["sh", "-c", _START, "sh", name], _HOOK.encode(), seconds=_SECONDS)
    if done.exit_status:
        raise GuestError(
            f"no DHCP server gave NIC {name!a} an address within {_ATTEMPTS} s",
            hint="give IPAddresses, or see whether a server answers in the network of the device",
        )
    leased = tuple(address for address in _addresses(channel, index) if address not in before)
    if not leased:
        raise GuestError(f"the container's DHCP client gave NIC {name!a} no address", hint="give IPAddresses")
    (links,) = call_each(channel, Family.ROUTE, [get_link(index)])
    return Lease(leased, min(link.mtu for link in links_of(links)) if links else 0)


def stop(channel: AgentChannel, name: str) -> None:
    """Stop the client of interface ``name``. Failures are ignored: the client affects nothing outside its guest."""
    try:
        channel.run(["sh", "-c", _STOP, "sh", name], seconds=_STOP_SECONDS)
    except KataError:
        return


def _addresses(channel: AgentChannel, index: int) -> list[InterfaceAddress]:
    (dumped,) = call_each(channel, Family.ROUTE, [dump_addresses(AF_INET)])
    return [found.value for found in addresses_of(dumped) if (found.index, found.family) == (index, AF_INET)]
