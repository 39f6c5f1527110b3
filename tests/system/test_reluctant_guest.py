"""A guest does not release a NIC whose addition or deletion was interrupted: no other command waits for it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.system.conftest import nic

from kata_runtime.sandbox.record import Work, WorkKind, load_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Sandbox

# QEMU's ACPI tables signal the removal of a PCI device by this event (hw/i386/acpi-build.c, _E01).
_HOTPLUG = "/sys/firmware/acpi/interrupts/gpe01"
_ROUTE = {"dest": "10.77.0.0/16", "device": "lo"}
_WAIT_SECONDS = 3.0


@contextmanager
def deaf(sandbox: Sandbox) -> Iterator[None]:
    """A guest that ignores requests to remove devices."""
    assert sandbox.guest("sh", "-c", f"echo disable > {_HOTPLUG}").returncode == 0
    try:
        yield
    finally:
        assert sandbox.guest("sh", "-c", f"echo enable > {_HOTPLUG}").returncode == 0


def _interrupt(sandbox: Sandbox, kind: str, document: dict[str, object]) -> None:
    """Leave the record as a killed command does: before the last step of add-iface, after the first of del-iface."""
    assert sandbox.network("add-iface", document).stderr == ""
    with sandbox.session() as session:
        record = session.record
        work = Work(WorkKind.ADD_NIC, record.nics[0])
        if kind == "deletion":
            work = Work(WorkKind.DELETE_NIC, name="eth0")
        session.save(record._replace(nics=() if kind == "addition" else record.nics, pending=(work,)))


def _timed(sandbox: Sandbox, verb: str, document: object = None) -> tuple[int, str, str, bool]:
    """Status, output, errors, and whether it was too short for a wait."""
    start = time.monotonic()
    done = sandbox.network(verb, document)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - start < _WAIT_SECONDS


def test_nothing_else_waits(sandbox: Sandbox, fresh_sandbox: Sandbox, namespace: Namespace) -> None:
    """Listings answer at once, other changes wait once and shortly; when the guest releases the NIC, it is removed."""
    for device in ("tap0", "tap1"):
        namespace.tap(device)
    with ThreadPoolExecutor(2) as pool:
        # Most of it is waiting.
        halves = [
            pool.submit(_check_nothing_else_waits, sandbox, "addition", "tap0"),
            pool.submit(_check_nothing_else_waits, fresh_sandbox, "deletion", "tap1"),
        ]
        for half in halves:
            half.result()


def _check_nothing_else_waits(sandbox: Sandbox, kind: str, device: str) -> None:
    document = nic(device, "eth0", "10.0.0.3/24")
    route = '[{"dest":"10.77.0.0/16","gateway":"","device":"lo"}]'
    _interrupt(sandbox, kind, document)
    with deaf(sandbox):
        assert _timed(sandbox, "list-ifaces") == (0, "null\n", "", True)
        listed = sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-L -t 10.0.0.1:80", sandbox.id)
        assert "does not exist" in listed.stderr
        first = sandbox.network("add-route", _ROUTE)
        assert (first.returncode, first.stdout, first.stderr) == (0, f"{route}\n", "")
        assert _timed(sandbox, "del-route", _ROUTE) == (0, f"{route}\n", "", True)
        status, answer, reason, at_once = _timed(sandbox, "add-iface", document)
        assert (status, answer, at_once) == (1, "null\n", True), reason
        told = "NIC 'eth0'" if kind == "addition" else "the container has a NIC 'eth0' already"
        assert reason.startswith(f"kata-runtime: {told}"), reason
        assert _timed(sandbox, "list-ifaces") == (0, "null\n", "", True)
        status, _, reason, at_once = _timed(sandbox, "del-iface", document)
        assert (status, reason, at_once) == (
            1,
            "kata-runtime: the guest's release of NIC 'nic0' did not happen within 10 s\n",
            False,
        )
    assert sandbox.network("del-iface", document).stdout == "null\n"
    assert load_record(str(sandbox.directory)).pending == ()
    assert sandbox.network("add-iface", document).stderr == ""
    assert [row["name"] for row in json.loads(sandbox.network("list-ifaces").stdout)] == ["eth0"]
    assert sandbox.network("del-iface", document).stdout == "null\n"
