"""Metrics: the whole page of fixed samples, the file, and a server that nobody can hold up."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from tests.unit.cli.test_ipvs_top import _SERVICES
from tests.unit.cli.topologies import TOPOLOGY

from kata_runtime import __version__
from kata_runtime.cli import metrics_command, metrics_server
from kata_runtime.cli.argument_parser import Call, parse
from kata_runtime.cli.container_sample import BUSY, RUNNING, STOPPED, UNREADABLE, Sample, sample, samples
from kata_runtime.cli.metrics_collector import SERVICES_MAX, ContainerCollector, families
from kata_runtime.cli.metrics_server import MetricsServer, parsed_address
from kata_runtime.errors import HostError, InputError, UsageError
from kata_runtime.ipvs.model import Statistics
from kata_runtime.oci.operations import list_states
from kata_runtime.sandbox.lock import LockFile
from kata_runtime.sandbox.operation_counters import BOUNDS, Counts
from kata_runtime.sandbox.paths import SandboxPaths
from kata_runtime.sandbox.record import Record, Work, WorkKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from prometheus_client.core import Metric

_WORK = Work(WorkKind.DELETE_NIC, name="eth1")
_RECORD = Record("web", 4711, accelerator="kvm", vcpus=2, created="2026-01-02T03:04:05+00:00", pending=(_WORK,))
_COUNTS = Counts(2, 1.5, (0, 1, 2, *[0] * (len(BOUNDS) - 2)))


class _Fixed(Collector):
    def __init__(self, found: Sequence[Sample]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        return families(self._found, _COUNTS, 0.25)


def _page(*found: Sample) -> str:
    registry = CollectorRegistry()
    registry.register(_Fixed(found))
    return generate_latest(registry).decode()


def _values(page: str) -> dict[str, float]:
    """Each line without comments, as name and labels, with its value."""
    pairs = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


_WEB = Sample(
    "web", RUNNING, _RECORD, [(nic.record, nic.guest) for nic in TOPOLOGY.nics], _SERVICES, {"add-iface": _COUNTS}
)


def test_page() -> None:
    """Everything of a running container is there, under the names that the documentation explains."""
    values = _values(_page(_WEB))
    cumulative = {"0.01": 0, "0.025": 1, **dict.fromkeys([*map(str, BOUNDS[2:]), "+Inf"], 3)}
    expected = {
        f'kata_build_info{{version="{__version__}"}}': 1,
        'kata_containers{status="running"}': 1,
        **{f'kata_containers{{status="{each}"}}': 0 for each in ("busy", "silent", "stopped", "unreadable")},
        "kata_scrape_duration_seconds": 0.25,
        **{f'kata_boot_duration_seconds_bucket{{le="{bound}"}}': count for bound, count in cumulative.items()},
        "kata_boot_duration_seconds_count": 3,
        "kata_boot_duration_seconds_sum": 1.5,
        "kata_boot_failures_total": 2,
        'kata_container_info{accelerator="kvm",container="web",vcpus="2"}': 1,
        'kata_container_up{container="web"}': 1,
        'kata_container_answered{container="web"}': 1,
        'kata_container_busy{container="web"}': 0,
        'kata_container_created_time_seconds{container="web"}': 1767323045,
        'kata_container_pending_work{container="web"}': 1,
        'kata_ipvs_services{container="web"}': 2,
        'kata_ipvs_servers{container="web"}': 3,
        'kata_ipvs_connections{container="web",state="active"}': 43,
        'kata_ipvs_connections{container="web",state="inactive"}': 86,
        'kata_ipvs_connections{container="web",state="persistent"}': 0,
        'kata_ipvs_unlisted_services{container="web"}': 0,
        **{
            f'kata_operation_duration_seconds_bucket{{container="web",le="{bound}",operation="add-iface"}}': count
            for bound, count in cumulative.items()
        },
        'kata_operation_duration_seconds_count{container="web",operation="add-iface"}': 3,
        'kata_operation_duration_seconds_sum{container="web",operation="add-iface"}': 1.5,
        'kata_operation_failures_total{container="web",operation="add-iface"}': 2,
    }
    assert {
        name: value for name, value in values.items() if "_nic_" not in name and "_service_" not in name
    } == expected


def test_nics_and_services() -> None:
    """Each NIC and each virtual service has its counters; a NIC that the guest lacks is down and counts nothing."""
    values = _values(_page(_WEB))
    first = {name: value for name, value in values.items() if 'nic="eth-test"' in name}
    assert first == {
        'kata_nic_info{container="web",device="tap_test",kind="tap",mac="02:42:20:6e:03:01",nic="eth-test"}': 1,
        **{
            f'kata_nic_{name}{{container="web",nic="eth-test"}}': value
            for name, value in {
                "up": 1, "receive_bytes_total": 15000, "receive_packets_total": 10, "receive_errors_total": 0,
                "receive_dropped_total": 7, "transmit_bytes_total": 2500000, "transmit_packets_total": 20,
                "transmit_errors_total": 3, "transmit_dropped_total": 0,
            }.items()
        },
    }  # fmt: skip
    assert {name: value for name, value in values.items() if 'nic="lost"' in name} == {
        'kata_nic_info{container="web",device="tap_gone",kind="tap",mac="02:42:20:6e:03:04",nic="lost"}': 1,
        'kata_nic_up{container="web",nic="lost"}': 0,
    }
    assert {name: value for name, value in values.items() if 'service="TCP 10.0.0.2:80"' in name} == {
        f'kata_ipvs_service_{name}{{container="web",service="TCP 10.0.0.2:80"}}': value
        for name, value in {
            "servers": 2, "active_connections": 40, "connections_total": 0, "receive_bytes_total": 0,
            "transmit_bytes_total": 0, "receive_packets_total": 0, "transmit_packets_total": 0,
        }.items()
    }  # fmt: skip


def test_others_are_told_with_less() -> None:
    """Busy, stopped and unreadable containers are reported as such, without counters; the page can be parsed."""
    page = _page(
        Sample("busy", BUSY, _RECORD), Sample("gone", STOPPED, _RECORD._replace(pid=0)), Sample("odd", UNREADABLE)
    )
    values = _values(page)
    states = {
        name: tuple(values[f'kata_container_{what}{{container="{name}"}}'] for what in ("up", "answered", "busy"))
        for name in ("busy", "gone", "odd")
    }
    assert states == {"busy": (1, 0, 1), "gone": (0, 0, 0), "odd": (0, 0, 0)}
    assert not [name for name in values if "nic" in name or "ipvs" in name]
    assert len(list(text_string_to_metric_families(page))) == 34


def test_directories_without_a_record(tmp_path: Path) -> None:
    """A container whose creation goes on, or was killed before there was a record, is counted as ``list`` shows it."""
    for name in ("begun", "killed"):
        (tmp_path / name).mkdir()
    lock = LockFile(SandboxPaths(str(tmp_path / "begun")).lock)
    assert lock.try_acquire()
    try:
        shown = {state["id"]: state["status"] for state in list_states(str(tmp_path), pytest.fail)}
        found = samples(str(tmp_path))
        gone = sample(str(tmp_path), "deleted", until=time.monotonic() + 60)
    finally:
        lock.close()
    assert shown == {"begun": "creating", "killed": "stopped"}
    assert (found, gone) == ([Sample("begun", BUSY), Sample("killed", STOPPED)], None)


def test_many_services_are_bounded() -> None:
    """Of very many virtual services the busiest are reported one by one, and how many are not."""
    many = [
        service._replace(
            spec=service.spec._replace(key=service.spec.key._replace(port=port)),
            statistics=Statistics(connections=port),
        )
        for service in _SERVICES[:1]
        for port in range(1, SERVICES_MAX + 11)
    ]
    values = _values(_page(_WEB._replace(services=many)))
    listed = sorted(value for name, value in values.items() if name.startswith("kata_ipvs_service_connections_total"))
    assert listed == list(range(11, SERVICES_MAX + 11))
    assert values['kata_ipvs_unlisted_services{container="web"}'] == 10


def test_empty_root(tmp_path: Path) -> None:
    """Where there is no container there are no metrics of any, and two looks at once are one."""
    collector = ContainerCollector(str(tmp_path / "none"))
    first, second = list(collector.collect()), list(collector.collect())
    assert [id(each) for each in first] == [id(each) for each in second]
    assert [sample.value for sample in first[1].samples] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "address"),
    [("9410", ("127.0.0.1", 9410)), ("10.0.0.1:80", ("10.0.0.1", 80)), ("[::1]:0", ("::1", 0))],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    """A port alone is one of the loopback address."""
    assert parsed_address(text) == address


@pytest.mark.parametrize("text", ["", ":80", "host", "1.2.3.4:", "1.2.3.4:65536", "::", "::1:80", "[::1]", "1.2.3.4:x"])
def test_no_address(text: str) -> None:
    """Anything else is a wrong command line."""
    with pytest.raises(UsageError) as caught:
        parsed_address(text)
    assert str(caught.value) == f"--listen is {text!a}; give PORT, or HOST:PORT with an IP address, [IPV6]:PORT"


@contextmanager
def _served(registry: CollectorRegistry) -> Iterator[tuple[str, int]]:
    with MetricsServer(("127.0.0.1", 0), registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.place
        finally:
            server.shutdown()
            thread.join()


def _get(place: tuple[str, int]) -> bytes:
    with socket.create_connection(place, 10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer


def test_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that send nothing, or a byte now and then, are cut off in time, and others are served meanwhile."""
    monkeypatch.setattr(metrics_server, "REQUEST_SECONDS", 1.0)
    registry = CollectorRegistry()
    registry.register(_Fixed([_WEB]))
    with _served(registry) as place:
        slow = [socket.create_connection(place, 10) for _ in range(5)]
        slow[0].sendall(b"GET /met")
        began = time.monotonic()
        assert _get(place).startswith(b"HTTP/1.0 200 OK\r\n")
        # One after the other they would take five seconds.
        assert time.monotonic() - began < 4.0
        for client in slow:
            assert client.recv(100) == b""
            client.close()
        assert b"kata_container_up" in _get(place)


def test_address_in_use() -> None:
    """An address that cannot be used is an error in one line."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(HostError) as caught:
            MetricsServer(("127.0.0.1", port), CollectorRegistry())
    assert str(caught.value) == f"cannot listen at 127.0.0.1 port {port}: Address already in use"


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    """--textfile replaces what a link leads to, readable for all, and neither link, pipe nor directory."""

    def write(path: Path) -> str:
        call = parse(["--root", str(tmp_path / "root"), "metrics", "--textfile", str(path)])
        assert isinstance(call, Call)
        try:
            metrics_command.run(call)
        except InputError as error:
            return str(error)
        return ""

    there, link, fifo = tmp_path / "kata.prom", tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(there)
    os.mkfifo(fifo)
    before = os.umask(0o022)
    try:
        assert [write(path) for path in (link, link, fifo, tmp_path)] == [
            "",
            "",
            f"--textfile '{fifo}' is no regular file; without --textfile metrics are printed",
            f"--textfile '{tmp_path}' is no regular file; without --textfile metrics are printed",
        ]
    finally:
        os.umask(before)
    assert "kata_build_info{" in there.read_text()
    assert (link.is_symlink(), fifo.is_fifo(), there.stat().st_mode & 0o777) == (True, True, 0o644)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "kata.prom", "link"]
