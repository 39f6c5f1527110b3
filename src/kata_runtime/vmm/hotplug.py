"""Plugs NICs into a running machine, and unplugs them.

A NIC's QEMU device, network back end and character device all have the NIC's identity as their ID.
"""

from __future__ import annotations

import time
from select import select

from kata_runtime.errors import HostError, KataError, QemuError
from kata_runtime.fast_contextlib import ExitStack
from kata_runtime.named_tuple import NamedTuple
from kata_runtime.vmm.qemu_arguments import root_port_bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_runtime.address_types import MacAddress
    from kata_runtime.vmm.monitor import Monitor

UNPLUG_SECONDS = 10.0
_UNDO_SECONDS = 3.0
_CONNECTED_SECONDS = 3.0
_CONNECTED_PAUSE_SECONDS = 0.005
_RECONNECT_SECONDS = 1
# Properties of virtio-net-pci that allow offload: for packets from the guest (csum, gso, host_*) and to it (guest_*).
# Those of later QEMU versions (host_uso, guest_uso4) need no entry: a driver uses them only together with checksums.
_OFFLOADS = (
    "csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo",
    "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo",
)  # fmt: skip


class NicDevice(NamedTuple):
    """A virtio NIC behind root port ``slot``; ``queues`` 0 is a single pair.

    Without ``offload`` frames in both directions are complete, with checksums.
    """

    identity: str
    slot: int
    mac: MacAddress
    queues: int = 0
    offload: bool = True


def plug_tap(monitor: Monitor, nic: NicDevice, tap_fds: Sequence[int], vhost_fds: Sequence[int] = ()) -> None:
    """Plug a NIC on an open TAP; the caller keeps its own descriptors. After a failure QEMU is as it was.

    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer.
    """
    identity = nic.identity
    with ExitStack() as undo:
        names: dict[str, list[str]] = {}
        for kind, descriptors in (("", tap_fds), ("vhost", vhost_fds)):
            for number, fd in enumerate(descriptors):
                name = f"{identity}.{kind or 'tap'}{number}"
                undo.callback(_attempt, monitor, "closefd", {"fdname": name})
                monitor.send_fd(fd, name)
                names.setdefault(kind, []).append(name)
        netdev: dict[str, object] = {"type": "tap", "id": identity}
        for kind, kind_names in names.items():
            several = len(tap_fds) > 1
            netdev[f"{kind}fds" if several else f"{kind}fd"] = ":".join(kind_names)
        if vhost_fds:
            netdev["vhost"] = True
        monitor.execute("netdev_add", netdev)
        # QEMU took the descriptors with the command; their names are free again.
        undo.pop_all()
        undo.callback(_attempt, monitor, "netdev_del", {"id": identity})
        monitor.execute("device_add", _device(nic))
        undo.pop_all()


def plug_vhost_user(monitor: Monitor, nic: NicDevice, socket_path: str, *, msix: bool) -> None:
    """Plug a NIC whose packets a vhost-user back end, listening at ``socket_path``, moves.

    QEMU connects again when the back end comes back. Prove beforehand that it answers
    (``vhost_user.examine``): to a back end that is silent QEMU would listen with the whole machine stopped.
    Without KVM give the NIC no ``msix``: QEMU 7.2 at least dies by SIGSEGV when the guest starts it (with no
    irqfd, virtio_pci_vector_unmask below msix_set_vector_notifiers and vhost_net_start follows a null pointer).

    :raise HostError: QEMU's user cannot connect there.
    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer.
    """
    identity = nic.identity
    address = {"type": "unix", "data": {"path": socket_path}}
    backend = {"type": "socket", "data": {"addr": address, "server": False, "reconnect": _RECONNECT_SECONDS}}
    netdev: dict[str, object] = {"type": "vhost-user", "id": identity, "chardev": identity}
    if nic.queues > 1:
        netdev["queues"] = nic.queues
    with ExitStack() as undo:
        monitor.execute("chardev-add", {"id": identity, "backend": backend})
        undo.callback(_attempt, monitor, "chardev-remove", {"id": identity})
        _await_connected(monitor, identity, socket_path)
        monitor.execute("netdev_add", netdev)
        undo.callback(_attempt, monitor, "netdev_del", {"id": identity})
        device = _device(nic)
        if not msix:
            device["vectors"] = 0
        monitor.execute("device_add", device)
        undo.pop_all()


def unplug(monitor: Monitor, identity: str, deadline: float = UNPLUG_SECONDS) -> None:
    """Unplug a NIC, with the guest's consent, and delete its back end; missing parts are ignored.

    :raise DeadlineError: the guest did not release the device within ``deadline`` seconds; it may still do so.
    :raise QemuError: QEMU refused or ended.
    """
    with monitor.listen("DEVICE_DELETED") as events:
        if _request_removal(monitor, identity):
            events.wait(
                lambda data: data.get("device") == identity,
                deadline,
                awaited=f"the guest's release of NIC {identity!r}",
            )
    _remove(monitor, "netdev_del", identity)
    _remove(monitor, "chardev-remove", identity)


def remove_backend(monitor: Monitor, identity: str) -> None:
    """Delete the network back end of a NIC that is still plugged; one that is missing is ignored.

    :raise QemuError, DeadlineError: QEMU refused, ended or did not answer.
    """
    _remove(monitor, "netdev_del", identity)


def forget_descriptors(monitor: Monitor, identity: str, queues: int) -> None:
    """Close what an interrupted ``plug_tap`` may have handed over for a NIC that never came to be.

    QEMU keeps a descriptor under its name beyond the connection that brought it.

    :raise QemuError, DeadlineError: QEMU ended or did not answer.
    """
    for kind in ("tap", "vhost"):
        for number in range(max(queues, 1)):
            # "not found" is the expected answer.
            _remove(monitor, "closefd", f"{identity}.{kind}{number}", key="fdname")


def _device(nic: NicDevice) -> dict[str, object]:
    # No host_mtu: it would forbid the guest a larger MTU later, and back ends need not know the feature.
    device: dict[str, object] = {
        "driver": "virtio-net-pci",
        "id": nic.identity,
        "netdev": nic.identity,
        "bus": root_port_bus(nic.slot),
        "mac": str(nic.mac),
        # Legacy virtio needs I/O ports, and the root ports have none.
        "disable-legacy": "on",
        # The guest boots from its initrd: no boot ROM to load into its memory.
        "romfile": "",
    }
    if nic.queues > 1:
        device["mq"] = True
        # One for each direction of each pair, one for changes of configuration, one for the control queue.
        device["vectors"] = 2 * nic.queues + 2
    if not nic.offload:
        device.update(dict.fromkeys(_OFFLOADS, False))
    return device


def _await_connected(monitor: Monitor, identity: str, path: str) -> None:
    """Wait until QEMU has connected to the back end.

    netdev_add for a chardev that is not connected yet would try for ever, with the machine stopped. QEMU
    has no event for it: it is asked, usually once.
    """
    end = time.monotonic() + _CONNECTED_SECONDS
    while True:
        for item in _rows(monitor.execute("query-chardev")):
            if item.get("label") == identity and not str(item.get("filename", "")).startswith("disconnected:"):
                return
        if time.monotonic() > end:
            raise HostError(
                f"QEMU cannot connect to {path!r} within {_CONNECTED_SECONDS:g} s",
                hint="the back end must listen there and allow QEMU's user to connect",
            )
        select([], [], [], _CONNECTED_PAUSE_SECONDS)


def _request_removal(monitor: Monitor, identity: str) -> bool:
    """Whether the guest has been asked, now or by an earlier command, and has not answered yet."""
    try:
        monitor.execute("device_del", {"id": identity})
    except QemuError as error:
        if error.error_class == "DeviceNotFound":
            return False
        # An interrupted command may have asked already; the answer then arrives as an event, too.
        if "already in the process of unplug" in error.message:
            return True
        raise
    return True


def _remove(monitor: Monitor, command: str, identity: str, *, key: str = "id") -> None:
    try:
        monitor.execute(command, {key: identity})
    except QemuError as error:
        # For netdevs the class is DeviceNotFound or GenericError, by version; for chardevs always GenericError.
        if error.error_class != "DeviceNotFound" and "not found" not in error.message:
            raise


def _attempt(monitor: Monitor, command: str, arguments: Mapping[str, object]) -> None:
    """Undo a step; its own failure is ignored, since the original error is the one to report."""
    try:
        monitor.execute(command, arguments, _UNDO_SECONDS)
    except KataError:
        return


def _rows(answer: object) -> list[Mapping[str, object]]:
    if isinstance(answer, list) and all(isinstance(row, dict) for row in answer):
        return answer
    raise QemuError("QEMU answered something that is no list")
