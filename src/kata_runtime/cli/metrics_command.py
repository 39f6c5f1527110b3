"""metrics: prints metrics for Prometheus, writes them to a file, or serves them over HTTP."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from kata_runtime.cli.settings import root_of
from kata_runtime.cli.streams import notify, write_bytes
from kata_runtime.errors import HostError, InputError, UsageError
from kata_runtime.optional_packages import PROMETHEUS_CLIENT, require
from kata_runtime.sandbox.files import replace_whole

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
    """Replace the file atomically, as node_exporter's textfile collector requires, which may run as another user.

    prometheus_client's write_to_textfile would also replace a link, or /dev/stdout, by a file.
    """
    from prometheus_client import generate_latest

    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"--textfile {path!a} is no regular file", hint="without --textfile metrics are printed")
    try:
        # Commands of several timers may write at the same time.
        replace_whole(target, generate_latest(registry), mode=0o644, suffix=f".{os.getpid()}")
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
