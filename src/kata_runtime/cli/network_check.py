"""kata-check --network: checks each NIC of a container from the guest to the bridge, and names remedies."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from kata_runtime.cli.network_json import compact
from kata_runtime.cli.sessions import session_of
from kata_runtime.cli.settings import ovsdb_of, root_of
from kata_runtime.cli.streams import notify, one_line, write_line, write_text
from kata_runtime.cli.text_table import text_table
from kata_runtime.errors import KataError
from kata_runtime.network.nic_check import (
    NicFinding,
    QemuSide,
    Verdict,
    connected_backends,
    host_findings,
    probe_findings,
)
from kata_runtime.network.pending_nics import begun_nics
from kata_runtime.network.topology import look_into_guest, topology
from kata_runtime.oci.guest_command import FreePort
from kata_runtime.vmm.tap_device import held_taps

if TYPE_CHECKING:
    from kata_runtime.cli.argument_parser import Call
    from kata_runtime.sandbox.record import Record


def run(call: Call, container: str) -> int:
    """Print the findings; fails if a NIC does not work."""
    record, findings = _look(call, container)
    if call.value("--format") == "json":
        write_line(compact([finding._asdict() for finding in findings]))
    else:
        rows = [(str(each.verdict), each.nic, each.check, one_line(each.value)) for each in findings]
        write_text(text_table(rows) if rows else f"container {record.container_id} has no NICs\n")
    for finding in findings:
        if finding.remedy:
            notify(f"{finding.nic}: {finding.check}: {finding.remedy}")
    broken = list(dict.fromkeys(finding.nic for finding in findings if finding.verdict is Verdict.BROKEN))
    if broken:
        raise KataError(f"container {record.container_id} has NICs that do not work: see {', '.join(broken)}")
    return 0


def _look(call: Call, container: str) -> tuple[Record, list[NicFinding]]:
    """Read the guest's state with the container's lock held; packets are sent and awaited after its release."""
    ovsdb = ovsdb_of(call)
    with session_of(call._replace(operands=[container]), "interface", changes=False) as session:
        record = session.record
        view = look_into_guest(session, time.monotonic())
        chardevs = session.monitor().execute("query-chardev") if record.nics else ()
    qemu = QemuSide(held_taps(record.pid), connected_backends(chardevs))
    guest = FreePort(os.path.join(root_of(call), record.container_id), record.container_id)
    findings: list[NicFinding] = []
    for nic in topology(record, view, ovsdb).nics:
        findings += host_findings(nic, qemu)
        findings += probe_findings(nic, view.routes, guest)
    for _, begun in begun_nics(record):
        value = "its addition or deletion was interrupted"
        remedy = f"kata-runtime kata-network del-iface {record.container_id} with its name completes it"
        findings.append(NicFinding(begun.name, "record", Verdict.WARNING, value, remedy))
    return record, findings
