"""A namespace mirrored into another one in place of the guest: both are of this host's kernel."""

from __future__ import annotations

import select
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kata_runtime.errors import HostError
from kata_runtime.network.mirror import mirror
from kata_runtime.network.namespace import Namespace, OwnNamespace
from kata_runtime.network.namespace_facts import describe, read_holdings
from kata_runtime.network.namespace_watch import NamespaceWatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kata_runtime.netlink.local import LocalTransport


class Side:
    """A network namespace with eth0 and eth1, whose other ends are up in it, too."""

    def __init__(self, path: str, namespace: Namespace, transport: LocalTransport) -> None:
        self.path = path
        self.namespace = namespace
        self.transport = transport

    def ip(self, *lines: str) -> None:
        """What iproute2 does of these lines; it goes on after one that the kernel refuses."""
        argv = ["nsenter", f"--net={self.path}", "--", "ip", "-force", "-batch", "-"]
        subprocess.run(argv, input="\n".join(lines), text=True, capture_output=True, check=False)

    def facts(self) -> list[str]:
        """All that is to be mirrored."""
        holdings = read_holdings(self.transport)
        names = {link.index: link.name for link in holdings.links if link.name in ("lo", "eth0", "eth1")}
        return holdings.facts(names)


@contextmanager
def _side(interfaces: int = 2) -> Iterator[Side]:
    argv = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
    with ExitStack() as stack:
        holder = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert holder.stdout is not None
        holder.stdout.readline()
        path = f"/proc/{holder.pid}/ns/net"
        namespace = stack.enter_context(Namespace(path))
        made = Side(path, namespace, stack.enter_context(namespace.transport()))
        made.ip("link set lo up")
        for number in range(interfaces):
            made.ip(
                f"link add eth{number} address 02:00:00:00:00:0{number} type veth peer name peer{number}",
                f"link set peer{number} addrgenmode none up",
                f"link set eth{number} up",
            )
        yield made


_ADDRESSES = ["10.0.0.3/24", "10.0.0.4/24", "10.0.0.4/16", "10.1.0.3/32", "fd00::3/64", "fd00::4/64", "fe80::77/64"]
_NETWORKS = ["10.50.0.0/16", "10.51.0.1", "default", "fd50::/32"]
_GATEWAYS = {"1": ["10.0.0.1", "10.0.0.2", "10.9.9.9"], "f": ["fd00::1", "fd00::2"]}
# In the network of no interface: such a gateway is refused through another interface (ip6_route_check_nh_onlink), so a
# namespace that had the route before the address is none that can be made again.
_ONLINK_GATEWAY = "fd02::1"


def _route(network: str, verb: str, gateway: int, device: str, more: str) -> str:
    if network == "default" and gateway > 2:
        return "-6 route flush fd99::/64"
    if network.startswith("fd") and more == "onlink":
        return f"route {verb} {network} via {_ONLINK_GATEWAY} dev {device} {more}"
    choice = _GATEWAYS["f" if network.startswith("fd") else "1"]
    return f"route {verb} {network} via {choice[gateway % len(choice)]} dev {device} {more}"


_DEVICES = st.sampled_from(["eth0", "eth1"])
_COMMANDS = st.one_of(
    st.builds("address {} {} dev {}".format, st.sampled_from(["add", "delete"]), st.sampled_from(_ADDRESSES), _DEVICES),
    st.builds(
        _route,
        st.sampled_from(_NETWORKS),
        st.sampled_from(["add", "append", "replace", "delete"]),
        st.integers(0, 3),
        _DEVICES,
        st.sampled_from(["", "onlink", "metric 7", "mtu 1300", "proto static"]),
    ),
    st.builds("route {} 10.52.0.0/16 dev {}".format, st.sampled_from(["add", "delete"]), _DEVICES),
    st.builds("route {} unreachable {}".format, st.sampled_from(["add", "delete"]), st.sampled_from(["10.53.0.0/16"])),
    st.builds("link set {} mtu {}".format, _DEVICES, st.sampled_from([1200, 1280, 1400, 9000])),
    st.builds("link set {} {}".format, _DEVICES, st.sampled_from(["up", "down"])),
    st.builds("link set {} address 02:00:00:00:01:{:02x}".format, _DEVICES, st.integers(0, 255)),
    st.builds("neighbour {} 10.0.0.{} lladdr 02:00:00:00:02:02 dev {} nud permanent".format,
              st.sampled_from(["replace", "delete"]), st.integers(1, 2), _DEVICES),
    st.builds("route {} 10.54.0.0/16 nexthop via 10.0.0.1 dev eth0 onlink nexthop via 10.0.0.2 dev eth1 weight 3 onlink"
              .format, st.sampled_from(["add", "delete"])),
)  # fmt: skip


_DEAD_HOP = "route add 10.54.0.0/16 nexthop via 10.0.0.1 dev eth0 onlink nexthop via 10.0.0.2 dev eth1 onlink"
_SECONDARY = [f"address add 10.0.0.{host}/24 dev eth0" for host in (3, 4)]


@settings(max_examples=40, deadline=None)
@example([[_DEAD_HOP, "link set eth0 down"], ["link set eth0 up"]])
@example([_SECONDARY, ["address delete 10.0.0.3/24 dev eth0", _SECONDARY[1]]])
@given(bursts=st.lists(st.lists(_COMMANDS, min_size=1, max_size=6), min_size=1, max_size=5))
def test_guest_is_what_the_namespace_is(bursts: list[list[str]]) -> None:
    """After any burst of changes the guest has every fact of the namespace and no other."""
    with _side() as inside, _side() as guest:
        before: Sequence[str] = []
        for burst in bursts:
            inside.ip(*burst)
            after = inside.facts()
            assert {describe(fact): str(why) for fact, why in mirror(guest.transport, before, after).items()} == {}
            assert sorted(guest.facts()) == sorted(after)
            before = after


def test_what_is_left_alone_in_the_guest() -> None:
    """What the guest's user added, or took away of what came from the namespace, stays until there is news of it."""
    with _side() as inside, _side() as guest:
        inside.ip("address add 10.0.0.3/24 dev eth0", "route add 10.50.0.0/16 via 10.0.0.1 metric 7")
        first = inside.facts()
        assert mirror(guest.transport, [], first) == {}
        guest.ip(
            "route delete 10.50.0.0/16 metric 7",
            "route add 10.60.0.0/16 via 10.0.0.9",
            "route add default via 10.0.0.9",
        )
        changed = guest.facts()
        inside.ip("route add 10.51.0.0/16 via 10.0.0.1")
        second = inside.facts()
        assert mirror(guest.transport, first, second) == {}
        assert set(guest.facts()) == {*changed, *(set(second) - set(first))}
        inside.ip("route replace default via 10.0.0.1", "route replace 10.50.0.0/16 via 10.0.0.2 metric 7")
        third = inside.facts()
        assert mirror(guest.transport, second, third) == {}
        assert [describe(fact) for fact in sorted(set(guest.facts()) - set(third))] == [
            "route 10.60.0.0/16 via 10.0.0.9 of eth0"
        ]


def test_refusals_are_told() -> None:
    """A fact that the guest's kernel does not take is named with the kernel's reason; the others are done."""
    with _side() as inside, _side() as guest:
        inside.ip("link set eth1 up", "address add 10.0.0.3/24 dev eth1", "route add 10.50.0.0/16 via 10.0.0.1")
        guest.ip("link delete eth0", "link set eth1 mtu 1300")
        after = [fact for fact in inside.facts() if " eth0 " not in fact]
        wrong = next(fact for fact in after if describe(fact) == "address 10.0.0.3/24 of eth1").replace(
            "0a000003", "00000000"
        )
        refused = mirror(guest.transport, [], [*after, wrong])
        assert [str(why).partition(": ")[0] for why in refused.values()] == [
            "the container's kernel does not take the address 0.0.0.0/24 of eth1 from its network namespace"
        ]
        assert sorted(guest.facts()) == sorted(after)


def _is_readable(watch: NamespaceWatch) -> bool:
    return bool(select.select([watch.fileno()], [], [], 5)[0])


def test_watch_sees_changes_and_losses() -> None:
    """Each kind of change wakes a watch of its namespace and no other; a learned neighbour does not, losses do."""
    changes = [
        "link set eth0 mtu 1400",
        "address add 10.0.0.3/24 dev eth0",
        "address add fd00::3/64 dev eth0",
        "route add 10.50.0.0/16 via 10.0.0.1",
        "route add fd50::/32 via fd00::1",
        "neighbour add 10.0.0.1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        "neighbour delete 10.0.0.1 dev eth0",
        "link delete eth1",
    ]
    with _side() as inside, _side(0) as other:
        watch, elsewhere = NamespaceWatch(inside.namespace), NamespaceWatch(other.namespace)
        try:
            # The kernel reports carriers and its own addresses up to a second after the interfaces were set up.
            while select.select([watch.fileno()], [], [], 2)[0]:
                watch.drain()
            elsewhere.drain()
            for change in changes:
                inside.ip(change)
                assert (_is_readable(watch), watch.drain(), watch.drain()) == (True, True, False), change
            inside.ip("neighbour add 10.0.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud reachable")
            assert (_is_readable(watch), watch.drain()) == (True, False)
            inside.ip(
                *[f"route add 10.{60 + high}.{low}.0/24 via 10.0.0.1" for high in range(64) for low in range(256)]
            )
            found = [watch.drain() for _ in range(20)]
            assert (found[0], found[-1], elsewhere.drain()) == (True, False, False)
        finally:
            watch.close()
            elsewhere.close()


def test_namespaces_are_entered_and_left() -> None:
    """A call in a namespace sees that one, its caller another; what is no namespace is reported."""
    with _side() as inside:
        assert inside.namespace.run(_identity) == inside.namespace.identity != _identity()
    with pytest.raises(HostError, match=r"^cannot open the network namespace '/nosuch': No such file or directory$"):
        Namespace("/nosuch")
    with Namespace("/dev/null") as wrong, pytest.raises(HostError, match=r"give the file of a network namespace$"):
        wrong.run(_identity)


def _identity() -> str:
    with OwnNamespace() as own:
        return own.identity
