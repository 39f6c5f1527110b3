"""metrics: prints metrics for Prometheus, writes them to a file, or serves them over HTTP."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from kata_runtime.cli.settings import root_of
from kata_runtime.cli.streams import notify, write_bytes
from kata_runtime.errors import HostError, UsageError
from kata_runtime.optional_packages import PROMETHEUS_CLIENT, require

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from kata_runtime.cli.argument_parser import Call


def run(call: Call) -> int:
    """Carry out the metrics command."""
    listen, textfile = call.value("--listen"), call.value("--textfile")
    if listen is not None and textfile is not None:
        raise UsageError("metrics has both --listen and --textfile", hint="give one of the two, or neither to print")
    require(PROMETHEUS_CLIENT)
    from prometheus_client import CollectorRegistry, generate_latest

    from kata_runtime.cli.metrics_collector import ContainerCollector

    registry = CollectorRegistry(auto_describe=False)
    collector = ContainerCollector(root_of(call))
    # Without auto_describe, which would sample all containers once more.
    registry.register(collector)
    if listen is not None:
        _serve(registry, listen)
    elif textfile is not None:
        _write(registry, textfile)
    else:
        write_bytes(generate_latest(registry))
    return 0


def _write(registry: CollectorRegistry, path: str) -> None:
    """Replace the file atomically, as node_exporter's textfile collector requires."""
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(os.path.abspath(path), registry)
    except OSError as error:
        raise HostError.of(f"cannot write {path}", error) from error


def _serve(registry: CollectorRegistry, listen: str) -> None:
    """Serve until a signal ends the process."""
    from kata_runtime.cli.interrupted import Interrupted
    from kata_runtime.cli.metrics_server import MetricsServer, parsed_address

    with MetricsServer(parsed_address(listen), registry) as server:
        host, port = server.place
        notify(f"metrics are at {f'[{host}]' if ':' in host else host}:{port}/metrics")
        try:
            server.serve_forever()
        except Interrupted as exc:
            if exc.number == signal.SIGHUP:
                raise
