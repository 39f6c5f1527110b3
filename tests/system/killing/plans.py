"""The commands that are ended at their steps, on a sandbox that has NIC eth1 with two routes and a virtual server."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import nic
from tests.system.killing.subject import Invocation, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.system.conftest import Sandbox

_NIC = nic("tap0", "eth0", "10.0.0.3/24", "fd00::3/64")
_KEPT = nic("tap1", "eth1", "10.1.0.3/24", mac="02:42:20:6e:03:02")
_PORT = {
    "name": "eth2",
    "IPAddresses": [{"address": "10.2.0.3", "mask": "24"}],
    "hwAddr": "02:42:20:6e:03:03",
    "mtu": 1400,
}
_ROUTES = [{"dest": f"10.{number}.0.0/16", "gateway": "10.1.0.1", "device": "eth1"} for number in range(20, 24)]
_PREVIOUS_ROUTES = _ROUTES[:2]
_PREVIOUS_RULES = "-A -t 10.9.9.9:80 -s wlc -p 60\n-a -t 10.9.9.9:80 -r 10.9.9.1:80 -m -w 7\n"
# The previous server is among what is deleted, edited or added.
_RULES = (
    "-e -t 10.9.9.9:80 -r 10.9.9.1:80 -m -w 9\n-a -t 10.9.9.9:80 -r 10.9.9.2:80 -m\n"
    "-A -u 10.9.9.8:53 -s rr\n" + "".join(f"-a -u 10.9.9.8:53 -r 10.9.8.{number}:53 -m\n" for number in range(1, 30))
)
_OTHER_RULES = "-A -t 10.9.9.9:80 -s rr\n-a -t 10.9.9.9:80 -r 10.9.9.3:80 -m\n-A -f 3 -s rr\n"


@contextmanager
def prepared(sandbox: Sandbox) -> Iterator[None]:
    """Two TAPs in the namespace of the sandbox's commands, and the NIC, routes and servers that stay."""
    namespace = sandbox.runtime.namespace
    assert namespace is not None
    namespace.tap("tap0", "10.0.0.1/24")
    namespace.tap("tap1", "10.1.0.1/24")
    namespace.run("ip", "link", "add", "br0", "type", "bridge")
    try:
        done = [
            sandbox.network("add-iface", _KEPT),
            sandbox.network("add-route", _PREVIOUS_ROUTES),
            sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id, stdin=_PREVIOUS_RULES),
        ]
        assert [one.stderr for one in done] == ["", "", ""]
        yield
    finally:
        sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-C", sandbox.id)
        for document in (_NIC, _KEPT):
            sandbox.network("del-iface", document)


def plans(container_id: str) -> list[Plan]:
    """In the order in which they leave the least behind for the next."""

    def network(verb: str, document: object = None) -> Invocation:
        if document is None:
            return Invocation(("kata-network", verb, container_id))
        return Invocation(("kata-network", verb, container_id, "-"), json.dumps(document).encode())

    def restore(rules: str, *options: str) -> Invocation:
        return Invocation(("kata-ipvs", "ipvsadm", "--restore", "-", *options, container_id), rules.encode())

    add, delete = network("add-iface", _NIC), network("del-iface", {"name": "eth0"})
    words = ("kata-network", "add-port", container_id, "-", "--bridge", "br0")
    port = Invocation(words, json.dumps(_PORT).encode())
    listed, routes = network("list-ifaces"), network("list-routes")
    added, previous = _ROUTES[2:], network("update-routes", _PREVIOUS_ROUTES)
    servers = Invocation(("kata-ipvs", "ipvsadm", "--parameters", "-S", container_id))
    return [
        Plan("add-route", network("add-route", added), (network("del-route", added),), routes),
        Plan("del-route", network("del-route", _PREVIOUS_ROUTES), (network("add-route", _PREVIOUS_ROUTES),), routes),
        Plan("update-routes", network("update-routes", _ROUTES[1:]), (previous,), routes),
        Plan("restore", restore(_RULES), (restore(_PREVIOUS_RULES, "--replace"),), servers),
        Plan(
            "restore --replace", restore(_OTHER_RULES, "--replace"), (restore(_PREVIOUS_RULES, "--replace"),), servers
        ),
        Plan("add-iface", add, (delete,), listed),
        Plan("del-iface", delete, (add,), listed),
        Plan(
            "add-port", port, (Invocation(("kata-network", "del-port", container_id, "eth2")),), network("list-ports")
        ),
    ]


def starting_point(plan: Plan) -> Sequence[Invocation]:
    """What must be done first for a plan that does not begin with the sandbox as ``prepared`` leaves it."""
    return plan.undo if plan.name == "del-iface" else ()
