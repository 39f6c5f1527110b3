"""A collector for Prometheus' official client with the metrics of all containers; see docs/monitoring.md.

Import it after ``optional_packages.require(PROMETHEUS_CLIENT)``.
"""

from __future__ import annotations

import calendar
import threading
import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from kata_runtime import __version__
from kata_runtime.cli.container_sample import BUSY, STATUSES, STOPPED, samples
from kata_runtime.sandbox.operation_counters import BOOT, BOUNDS, Counts, read_root_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from kata_runtime.cli.container_sample import Sample
    from kata_runtime.ipvs.model import Service

# Scrapes within this time share a snapshot.
_FRESH_SECONDS = 1.0
# Each service has a time series for every counter: if there are more, only the busiest are reported separately.
SERVICES_MAX = 200

_NIC_COUNTERS = (
    ("receive_bytes", "Bytes that the NIC received", "received_bytes"),
    ("receive_packets", "Packets that the NIC received", "received_packets"),
    ("receive_errors", "Packets received with an error", "received_errors"),
    ("receive_dropped", "Received packets that were dropped", "received_dropped"),
    ("transmit_bytes", "Bytes that the NIC sent", "sent_bytes"),
    ("transmit_packets", "Packets that the NIC sent", "sent_packets"),
    ("transmit_errors", "Packets that could not be sent", "sent_errors"),
    ("transmit_dropped", "Packets dropped on their way out", "sent_dropped"),
)


class ContainerCollector(Collector):
    """Samples all containers of a root at each scrape."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._last: list[Metric] = []
        self._looked = 0.0

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``. :raise HostError: the directory of the containers cannot be read."""
        with self._lock:
            if not self._last or time.monotonic() - self._looked > _FRESH_SECONDS:
                began = time.monotonic()
                found = samples(self._root)
                boots = read_root_counts(self._root).get(BOOT, Counts())
                self._looked = time.monotonic()
                self._last = list(families(found, boots, self._looked - began))
            last = self._last
        yield from last


def families(found: Sequence[Sample], boots: Counts, seconds: float) -> Iterator[Metric]:
    """All metrics of these containers; ``boots`` are those of all sandboxes, ``seconds`` the duration of sampling."""
    yield from _overall(found, boots, seconds)
    yield from _containers(found)
    yield from _nics(found)
    yield from _balancing(found)
    yield from _services(found)
    yield from _operations(found)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"kata_{name}", text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"kata_{name}", text, labels=labels)


def _overall(found: Sequence[Sample], boots: Counts, seconds: float) -> Iterator[Metric]:
    version = _gauge("build_info", "The version of kata-runtime", "version")
    version.add_metric([__version__], 1)
    yield version
    containers = _gauge("containers", "Containers by their status", "status")
    for status in STATUSES:
        containers.add_metric([status], sum(each.status == status for each in found))
    yield containers
    yield GaugeMetricFamily("kata_scrape_duration_seconds", "Duration of sampling all containers", value=seconds)
    duration = HistogramMetricFamily("kata_boot_duration_seconds", "From the start of a VM until its agent answered")
    duration.add_metric([], _buckets(boots), boots.seconds)
    yield duration
    failures = CounterMetricFamily("kata_boot_failures", "VMs that did not boot", value=boots.failures)
    yield failures


def _containers(found: Sequence[Sample]) -> Iterator[Metric]:
    info = _gauge("container_info", "How the VM runs", "container", "accelerator", "vcpus")
    up = _gauge("container_up", "Whether the VM runs", "container")
    answered = _gauge("container_answered", "Whether the guest answered this scrape", "container")
    busy = _gauge("container_busy", "Whether another command held the container during this scrape", "container")
    created = _gauge("container_created_time_seconds", "When the container was made, since 1970", "container")
    pending = _gauge("container_pending_work", "Changes that were interrupted and are not undone yet", "container")
    for each in found:
        label = [each.container]
        up.add_metric(label, each.record is not None and each.status != STOPPED)
        answered.add_metric(label, each.status == STATUSES[0])
        busy.add_metric(label, each.status == BUSY)
        if each.record is not None:
            info.add_metric([each.container, each.record.accelerator, str(each.record.vcpus)], 1)
            pending.add_metric(label, len(each.record.pending))
            seconds = _seconds(each.record.created)
            if seconds is not None:
                created.add_metric(label, seconds)
    yield from (info, up, answered, busy, created, pending)


def _nics(found: Sequence[Sample]) -> Iterator[Metric]:
    info = _gauge("nic_info", "What the NIC is connected to", "container", "nic", "device", "kind", "mac")
    up = _gauge("nic_up", "Whether the NIC is up and has a carrier in the guest", "container", "nic")
    counters = [(_counter(f"nic_{name}", text, "container", "nic"), field) for name, text, field in _NIC_COUNTERS]
    for each in found:
        for nic, guest in each.nics:
            label = [each.container, nic.name]
            info.add_metric([*label, nic.device, str(nic.kind), str(nic.mac)], 1)
            up.add_metric(label, guest is not None and guest.is_up and guest.has_carrier)
            if guest is not None:
                for family, field in counters:
                    family.add_metric(label, getattr(guest.counters, field))
    yield from (info, up, *(family for family, _ in counters))


def _balancing(found: Sequence[Sample]) -> Iterator[Metric]:
    services = _gauge("ipvs_services", "Virtual services", "container")
    servers = _gauge("ipvs_servers", "Servers of all virtual services", "container")
    connections = _gauge("ipvs_connections", "Connections to servers", "container", "state")
    unlisted = _gauge("ipvs_unlisted_services", "Virtual services that are not reported one by one", "container")
    for each in found:
        if each.services is None or each.record is None:
            continue
        label = [each.container]
        all_servers = [server for service in each.services for server in service.servers]
        services.add_metric(label, len(each.services))
        servers.add_metric(label, len(all_servers))
        unlisted.add_metric(label, max(0, len(each.services) - SERVICES_MAX))
        for state in ("active", "inactive", "persistent"):
            connections.add_metric([*label, state], sum(getattr(server, state) for server in all_servers))
    yield from (services, servers, connections, unlisted)


def _services(found: Sequence[Sample]) -> Iterator[Metric]:
    names = ("container", "service")
    servers = _gauge("ipvs_service_servers", "Servers of the virtual service", *names)
    active = _gauge("ipvs_service_active_connections", "Active connections to its servers", *names)
    counters = [
        (_counter("ipvs_service_connections", "Connections that were balanced", *names), "connections"),
        (_counter("ipvs_service_receive_bytes", "Bytes from clients", *names), "in_bytes"),
        (_counter("ipvs_service_transmit_bytes", "Bytes to clients", *names), "out_bytes"),
        (_counter("ipvs_service_receive_packets", "Packets from clients", *names), "in_packets"),
        (_counter("ipvs_service_transmit_packets", "Packets to clients", *names), "out_packets"),
    ]
    for each in found:
        for service in _busiest(each.services or ()):
            label = [each.container, " ".join(service.spec.key.text.split())]
            servers.add_metric(label, len(service.servers))
            active.add_metric(label, sum(server.active for server in service.servers))
            for family, field in counters:
                family.add_metric(label, getattr(service.statistics, field))
    yield from (servers, active, *(family for family, _ in counters))


def _busiest(services: Sequence[Service]) -> Sequence[Service]:
    """The services with most connections so far; as these only grow, the selection changes rarely."""
    return sorted(services, key=lambda service: (-service.statistics.connections, service.spec.key))[:SERVICES_MAX]


def _operations(found: Sequence[Sample]) -> Iterator[Metric]:
    names = ("container", "operation")
    duration = HistogramMetricFamily(
        "kata_operation_duration_seconds", "How long commands that succeeded held the container", labels=names
    )
    failures = _counter("operation_failures", "Commands that failed while they held the container", *names)
    for each in found:
        for operation, counts in each.operations.items():
            label = [each.container, operation]
            duration.add_metric(label, _buckets(counts), counts.seconds)
            failures.add_metric(label, counts.failures)
    yield from (duration, failures)


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    """The cumulative buckets of a Prometheus histogram."""
    bounds = [*map(str, BOUNDS), "+Inf"]
    return [(bound, sum(counts.buckets[: place + 1])) for place, bound in enumerate(bounds)]


def _seconds(created: str) -> float | None:
    try:
        return calendar.timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%S+00:00"))
    except ValueError:
        return None
