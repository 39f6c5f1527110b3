"""What goes wrong while a namespace is carried along: nothing is left behind, and the next command goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from tests.system.carried.conftest import Carried, pings
from tests.system.conftest import booted, network_namespace
from tests.system.killing import world
from tests.system.killing.killed_step import is_killed, killed_program
from tests.system.test_reluctant_guest import deaf

from kata_runtime.errors import ConflictError
from kata_runtime.network.namespace_facts import read_holdings
from kata_runtime.sandbox.process import await_end
from kata_runtime.sandbox.record import load_record
from kata_runtime.vmm import hotplug

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.conftest import Namespace, Runtime, Sandbox

# Whatever touches the record, QEMU, the guest or the namespace.
_STEPS = (
    "kata_runtime.sandbox.session:Session.save",
    "kata_runtime.vmm.monitor:Monitor.execute",
    "kata_runtime.vmm.monitor:Monitor.send_fd",
    "kata_runtime.guest.channel:AgentChannel.exchange",
    "kata_runtime.guest.subscription:Subscription.wait",
    "kata_runtime.netlink.local:LocalTransport.exchange",
    "kata_runtime.network.namespace:Namespace.run",
)
_RECONCILE = """
root, container_id, path = sys.argv[1:]
from kata_runtime.network.namespace import Namespace
from kata_runtime.network.reconcile import reconcile
from kata_runtime.recovery import recover
from kata_runtime.sandbox.session import open_session
with Namespace(path) as namespace, open_session(root, container_id, recover) as session:
    reconcile(session, namespace, creating=True)
"""
_ENOUGH = 60


def _left_inside(inside: Namespace) -> list[str]:
    """TAPs of ours and what redirects packets."""
    links = [row["ifname"] for row in json.loads(inside.run("ip", "-j", "link").stdout)]
    qdiscs = json.loads(inside.run("tc", "-j", "qdisc").stdout)
    return sorted(name for name in links if name.endswith("_kata")) + sorted(
        f"{row['kind']} {row['dev']}" for row in qdiscs if row["kind"] in ("ingress", "clsact")
    )


def _state(sandbox: Sandbox) -> tuple[object, ...]:
    """Record, machine and guest; the guest by netlink, since commands in it take long."""
    with sandbox.session() as session:
        guest = read_holdings(session.channel())
        record = session.record
    names = {link.index: link.name for link in guest.links}
    # QEMU closes a connection some time after its client did: which number is free next is chance.
    machine = [re.sub(r"\bfd=\d+", "fd", line) for line in sandbox.monitor_objects()]
    return record, machine, sorted(guest.facts(names))


def _killed(carried: Carried, step: int) -> bool:
    """Whether a reconcile lived long enough to be killed after this step."""
    sandbox = carried.sandbox
    arguments = (str(sandbox.root), sandbox.id, carried.path)
    killed = is_killed(killed_program(_STEPS, step, "after", _RECONCILE, *arguments))
    sandbox.settle()
    return killed


def test_killed_at_each_step(carried: Carried) -> None:
    """Wherever reconcile is killed, plugging or unplugging, any command recovers, and the next reconcile ends it."""
    sandbox, inside = carried.sandbox, carried.inside
    before, descriptors = _state(sandbox), world.look(sandbox).descriptors
    whole: tuple[object, ...] = ()
    steps = [0, 0]
    for step in range(1, _ENOUGH):
        carried.veth("eth0", 30, mac="02:42:0a:1e:00:03")
        carried.inside.run("ip", "route", "add", "default", "via", "10.30.0.1")
        steps[0] += _killed(carried, step)
        assert carried.reconcile() == []
        plugged = _state(sandbox)[1:]
        whole = whole or plugged
        assert (plugged, _left_inside(inside)) == (whole, ["tap0_kata", "ingress eth0", "ingress tap0_kata"])
        inside.run("ip", "link", "delete", "eth0")
        killed = _killed(carried, step)
        steps[1] += killed
        assert carried.reconcile() == []
        assert (_state(sandbox), _left_inside(inside)) == (before, [])
        if not killed and steps[0] < step:
            break
    assert world.look(sandbox, {descriptors}).descriptors == descriptors
    assert 20 <= steps[0] < _ENOUGH - 1
    assert 8 <= steps[1] < steps[0]


def test_interface_is_as_it_was(carried: Carried) -> None:
    """A NIC that must be taken out of the VM while its veth stays leaves the veth without redirection."""
    carried.veth("eth0", 31)
    assert carried.reconcile(creating=True) == []
    assert _left_inside(carried.inside) == ["tap0_kata", "ingress eth0", "ingress tap0_kata"]
    # Under another name it is another NIC.
    carried.inside.run("ip", "link", "set", "eth0", "name", "net7")
    assert carried.reconcile() == []
    assert carried.same() == ["net7"]
    assert pings(carried.sandbox, "10.31.0.1")
    assert _left_inside(carried.inside) == ["tap0_kata", "ingress net7", "ingress tap0_kata"]


def test_what_cannot_be_carried(carried: Carried) -> None:
    """At create it is refused by name and nothing changes; later it is reported, and the others follow."""
    carried.veth("eth0", 32)
    before = _state(carried.sandbox)
    carried.inside.run("ip", "tuntap", "add", "vpn", "mode", "tun")
    carried.inside.run("ip", "address", "add", "10.33.0.1/24", "dev", "vpn")
    reason = "interface 'vpn' (tun) of the network namespace cannot be in the VM: it is no Ethernet interface"
    with pytest.raises(ConflictError) as refusal:
        carried.reconcile(creating=True)
    assert str(refusal.value) == f"{reason}; take it out of the namespace, or set it down and delete its addresses"
    assert (_state(carried.sandbox), _left_inside(carried.inside)) == (before, [])
    assert carried.reconcile() == [reason]
    assert pings(carried.sandbox, "10.32.0.1")
    # Somebody else's traffic control is not overwritten.
    carried.veth("net1", 34)
    carried.inside.run("tc", "qdisc", "add", "dev", "net1", "ingress")
    matching_all = ("u32", "match", "u32", "0", "0", "flowid", "1:1")
    carried.inside.run("tc", "filter", "add", "dev", "net1", "ingress", *matching_all)
    assert carried.reconcile() == [
        reason,
        "interface 'net1' has an ingress qdisc of its own; delete it with 'tc qdisc'",
    ]
    assert _left_inside(carried.inside) == ["tap0_kata", "ingress eth0", "ingress net1", "ingress tap0_kata"]


def test_guest_that_does_not_let_go(carried: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, waited for once, and asked again with each change; the rest follows meanwhile."""
    monkeypatch.setattr(hotplug, "UNPLUG_SECONDS", 1.0)
    carried.veth("eth0", 36)
    carried.veth("net1", 37)
    assert carried.reconcile(creating=True) == []
    reason = "the guest does not release NIC 'eth0', whose interface was deleted"
    with deaf(carried.sandbox):
        carried.inside.run("ip", "link", "delete", "eth0")
        assert carried.reconcile() == [reason]
        monkeypatch.setattr(hotplug, "UNPLUG_SECONDS", 60.0)
        carried.inside.run("ip", "route", "add", "10.99.0.0/16", "via", "10.37.0.1")
        assert carried.reconcile() == [reason]
        assert "10.99.0.0/16" in carried.sandbox.guest("ip", "route").stdout
    assert carried.reconcile() == []
    assert carried.same() == ["net1"]


def test_nothing_is_left_in_the_namespace(runtime: Runtime, unique: Callable[[str], str]) -> None:
    """With QEMU, however it ends, the TAP goes; with delete the redirection of the interface."""
    with network_namespace(unique("in")) as inside, network_namespace(unique("out")) as outside:
        with booted(runtime, unique("own")) as sandbox:
            carried = Carried(sandbox, inside, outside)
            carried.veth("eth0", 35)
            assert carried.reconcile(creating=True) == []
            record = load_record(str(sandbox.directory))
            os.kill(record.pid, signal.SIGKILL)
            await_end(record.pid, record.start_time, 10)
            assert _left_inside(inside) == ["ingress eth0"]
        assert _left_inside(inside) == []
