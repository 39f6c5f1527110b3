"""Plugging and unplugging against a simulated machine that records its devices, and refuses where the test says so."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.typed_addresses import mac

from kata_runtime.errors import DeadlineError, HostError, KataError, QemuError
from kata_runtime.vmm import hotplug
from kata_runtime.vmm.hotplug import NicDevice, forget_descriptors, plug_tap, plug_vhost_user, unplug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Call = tuple[str, Any]
_MAC = "02:42:20:6e:03:01"


class _Events:
    def __init__(self, machine: _Machine) -> None:
        self._machine = machine

    def wait(
        self, predicate: Callable[[Mapping[str, object]], bool], deadline: float, *, awaited: str
    ) -> Mapping[str, object]:
        for data in self._machine.deleted:
            if predicate(data):
                return data
        raise DeadlineError(awaited, deadline)


class _Machine:
    """Stands for Monitor and the QEMU behind it; ``calls`` is all that was asked."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.descriptors: set[str] = set()
        self.netdevs: set[str] = set()
        self.chardevs: set[str] = set()
        self.devices: set[str] = set()
        self.deleted: list[dict[str, object]] = []
        self.listening = False
        self.connected = True
        self.guest_lets_go = True
        self.unplugging: set[str] = set()
        self.fail_at = -1
        self.carried_out = False

    def state(self) -> list[set[str]]:
        """What there is, copied."""
        return [set(part) for part in (self.descriptors, self.netdevs, self.chardevs, self.devices)]

    def send_fd(self, fd: int, name: str) -> None:
        self._do("getfd", {"fdname": name, "fd": fd}, lambda: self.descriptors.add(name))

    def execute(self, command: str, arguments: Any = None, deadline: float = 10.0) -> object:
        act = getattr(self, "_" + command.replace("-", "_"))
        return self._do(command, arguments, lambda: act(arguments))

    @contextmanager
    def listen(self, *names: str) -> Iterator[_Events]:
        assert names == ("DEVICE_DELETED",)
        self.listening = True
        yield _Events(self)

    def _do(self, command: str, arguments: Any, act: Callable[[], object]) -> object:
        number = len(self.calls)
        self.calls.append((command, arguments))
        if number != self.fail_at:
            return act()
        if self.carried_out:
            act()
            raise DeadlineError(f"QEMU's answer to {command}", 10)
        raise QemuError(f"QEMU refused {command}: no", command=command, error_class="GenericError")

    @staticmethod
    def _take(things: set[str], name: str, text: str, kind: str = "GenericError") -> None:
        if name not in things:
            raise QemuError(f"QEMU refused: {text} '{name}' not found", error_class=kind)
        things.remove(name)

    def _closefd(self, arguments: Any) -> None:
        self._take(self.descriptors, arguments["fdname"], "File descriptor named")

    def _netdev_add(self, arguments: Any) -> None:
        for key in ("fd", "fds", "vhostfd", "vhostfds"):
            for name in filter(None, arguments.get(key, "").split(":")):
                self.descriptors.remove(name)
        self.netdevs.add(arguments["id"])

    def _netdev_del(self, arguments: Any) -> None:
        self._take(self.netdevs, arguments["id"], "Device", "DeviceNotFound")

    def _chardev_add(self, arguments: Any) -> None:
        self.chardevs.add(arguments["id"])

    def _chardev_remove(self, arguments: Any) -> None:
        self._take(self.chardevs, arguments["id"], "Chardev")

    def _query_chardev(self, _: Any) -> object:
        prefix = "" if self.connected else "disconnected:"
        return [{"label": name, "filename": f"{prefix}unix:/run/back.sock"} for name in sorted(self.chardevs)]

    def _device_add(self, arguments: Any) -> None:
        self.devices.add(arguments["id"])

    def _device_del(self, arguments: Any) -> None:
        name = arguments["id"]
        if name not in self.devices:
            raise QemuError(f"QEMU refused: Device '{name}' not found", error_class="DeviceNotFound")
        if name in self.unplugging and not self.guest_lets_go:
            text = f"QEMU refused: Device {name} is already in the process of unplug"
            raise QemuError(text, error_class="GenericError")
        self.unplugging.add(name)
        if self.guest_lets_go:
            assert self.listening, "the event would have been missed"
            self.devices.remove(name)
            self.deleted += [{"path": f"/machine/peripheral/{name}/virtio-backend"}, {"device": name, "path": "p"}]


def _nic(**more: object) -> dict[str, object]:
    return {
        "driver": "virtio-net-pci",
        "id": "nic9",
        "netdev": "nic9",
        "bus": "rp9",
        "mac": _MAC,
        "disable-legacy": "on",
        "romfile": "",
        **more,
    }


def _tap(machine: Any, taps: int = 1, vhosts: int = 0, *, offload: bool = True) -> None:
    nic = NicDevice("nic9", 9, mac(_MAC), taps if taps > 1 else 0, offload)
    plug_tap(machine, nic, range(10, 10 + taps), range(20, 20 + vhosts))


def _user(machine: Any, queues: int = 0, *, msix: bool = True) -> None:
    plug_vhost_user(machine, NicDevice("nic9", 9, mac(_MAC), queues), "/run/back.sock", msix=msix)


def test_a_tap() -> None:
    """One queue: the descriptor by name, the back end, the device, in this order and with these arguments."""
    machine = _Machine()
    _tap(machine)
    assert machine.calls == [
        ("getfd", {"fdname": "nic9.tap0", "fd": 10}),
        ("netdev_add", {"type": "tap", "id": "nic9", "fd": "nic9.tap0"}),
        ("device_add", _nic()),
    ]
    assert machine.state() == [set(), {"nic9"}, set(), {"nic9"}]


def test_a_tap_of_two_queues_with_vhost() -> None:
    """Several queues: all descriptors in order, mq, and 2N+2 interrupt vectors."""
    machine = _Machine()
    _tap(machine, 2, 2)
    assert machine.calls == [
        ("getfd", {"fdname": "nic9.tap0", "fd": 10}),
        ("getfd", {"fdname": "nic9.tap1", "fd": 11}),
        ("getfd", {"fdname": "nic9.vhost0", "fd": 20}),
        ("getfd", {"fdname": "nic9.vhost1", "fd": 21}),
        (
            "netdev_add",
            {
                "type": "tap",
                "id": "nic9",
                "fds": "nic9.tap0:nic9.tap1",
                "vhostfds": "nic9.vhost0:nic9.vhost1",
                "vhost": True,
            },
        ),
        ("device_add", _nic(mq=True, vectors=6)),
    ]


def test_a_tap_without_offload() -> None:
    """QEMU offers the guest neither checksums nor segmentation, in either direction."""
    machine = _Machine()
    _tap(machine, offload=False)
    off = [
        *("csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo"),
        *("guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"),
    ]
    assert machine.calls[-1] == ("device_add", _nic(**dict.fromkeys(off, False)))


@pytest.mark.parametrize(
    ("queues", "msix", "netdev", "nic"),
    [
        (0, True, {}, {}),
        (1, False, {}, {"vectors": 0}),
        (5, True, {"queues": 5}, {"mq": True, "vectors": 12}),
        (5, False, {"queues": 5}, {"mq": True, "vectors": 0}),
    ],
)
def test_a_vhost_user_nic(queues: int, msix: object, netdev: dict[str, object], nic: dict[str, object]) -> None:
    """The character device reconnects and is connected before the back end; without MSI-X there is no vector."""
    machine = _Machine()
    _user(machine, queues, msix=bool(msix))
    backend = {
        "type": "socket",
        "data": {
            "addr": {"type": "unix", "data": {"path": "/run/back.sock"}},
            "server": False,
            "reconnect": 1,
        },
    }
    assert machine.calls == [
        ("chardev-add", {"id": "nic9", "backend": backend}),
        ("query-chardev", None),
        ("netdev_add", {"type": "vhost-user", "id": "nic9", "chardev": "nic9", **netdev}),
        ("device_add", _nic(**nic)),
    ]


def _steps(plug: Callable[[Any], None]) -> int:
    machine = _Machine()
    plug(machine)
    return len(machine.calls)


_PLUGS: dict[str, Callable[[Any], None]] = {
    "tap": _tap,
    "tap with 3 queues and vhost": lambda machine: _tap(machine, 3, 3),
    "vhost-user": _user,
}


@pytest.mark.parametrize(
    ("kind", "step"), [(kind, step) for kind, plug in _PLUGS.items() for step in range(_steps(plug))]
)
def test_a_refusal_at_any_step_is_undone(kind: str, step: int) -> None:
    """Whichever command QEMU refuses, afterwards it has what it had before, and the refusal is what is reported."""
    machine = _Machine()
    machine.fail_at = step
    with pytest.raises(QemuError, match=r"^QEMU refused [a-z_-]+: no$"):
        _PLUGS[kind](machine)
    assert machine.state() == [set(), set(), set(), set()]


@pytest.mark.parametrize(
    ("kind", "step"), [(kind, step) for kind, plug in _PLUGS.items() for step in range(_steps(plug))]
)
def test_a_deadline_at_any_step_can_be_undone(kind: str, step: int) -> None:
    """A command that QEMU carried out without answering leaves nothing that unplugging does not find."""
    machine = _Machine()
    machine.fail_at, machine.carried_out = step, True
    with pytest.raises(DeadlineError):
        _PLUGS[kind](machine)
    as_any: Any = machine
    unplug(as_any, "nic9")
    assert machine.state() == [set(), set(), set(), set()]


def test_a_failure_of_undoing_hides_nothing() -> None:
    """When the undo fails, too, the first failure is what is reported."""

    class _Stubborn(_Machine):
        def _netdev_del(self, arguments: Any) -> None:
            raise QemuError("QEMU ended or closed its monitor during netdev_del")

    machine = _Stubborn()
    machine.fail_at = 2
    with pytest.raises(QemuError, match=r"^QEMU refused device_add: no$"):
        _tap(machine)
    assert machine.netdevs == {"nic9"}


def test_a_back_end_that_qemu_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU is not given a back end that it is not connected to: it would stop the machine and wait."""
    monkeypatch.setattr(hotplug, "_CONNECTED_SECONDS", 0.02)
    machine = _Machine()
    machine.connected = False
    with pytest.raises(HostError) as caught:
        _user(machine)
    assert str(caught.value) == (
        "QEMU cannot connect to '/run/back.sock' within 0.02 s; "
        "the back end must listen there and allow QEMU's user to connect"
    )
    assert "netdev_add" not in [command for command, _ in machine.calls]
    assert machine.state() == [set(), set(), set(), set()]


@pytest.mark.parametrize("kind", _PLUGS)
def test_unplugging(kind: str) -> None:
    """The device goes first, with the guest's consent, then its back end; repeating it is fine."""
    machine = _Machine()
    as_any: Any = machine
    _PLUGS[kind](machine)
    machine.calls.clear()
    unplug(as_any, "nic9")
    assert machine.calls == [(verb, {"id": "nic9"}) for verb in ("device_del", "netdev_del", "chardev-remove")]
    assert machine.state() == [set(), set(), set(), set()]
    unplug(as_any, "nic9")


def test_a_guest_that_does_not_let_go() -> None:
    """The back end stays as long as the device does; a second try waits for the first request's answer."""
    machine = _Machine()
    as_any: Any = machine
    _tap(machine)
    machine.guest_lets_go = False
    for _ in range(2):
        with pytest.raises(DeadlineError) as caught:
            unplug(as_any, "nic9", 0.01)
        assert str(caught.value) == "the guest's release of NIC 'nic9' did not happen within 0.01 s"
        assert machine.state() == [set(), {"nic9"}, set(), {"nic9"}]
    machine.guest_lets_go = True
    unplug(as_any, "nic9")
    assert machine.state() == [set(), set(), set(), set()]


@pytest.mark.parametrize("command", ["device_del", "netdev_del", "chardev-remove"])
def test_other_refusals_of_unplugging_are_told(command: str) -> None:
    """Only the absence of a part is fine."""
    machine = _Machine()
    as_any: Any = machine
    _user(machine)
    machine.fail_at = len(machine.calls) + ["device_del", "netdev_del", "chardev-remove"].index(command)
    with pytest.raises(KataError, match=f"^QEMU refused {command}: no$"):
        unplug(as_any, "nic9")


def test_forgetting_descriptors() -> None:
    """Descriptors of an interrupted command are closed, those that are not there are fine."""
    machine = _Machine()
    machine.descriptors = {"nic9.tap1", "nic9.vhost0", "nic8.tap0"}
    as_any: Any = machine
    forget_descriptors(as_any, "nic9", 2)
    assert machine.descriptors == {"nic8.tap0"}
