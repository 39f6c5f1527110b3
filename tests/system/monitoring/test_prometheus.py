"""Metrics, scraped by a real Prometheus, and the queries of the Grafana dashboard."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import nic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Namespace, Sandbox

_DASHBOARD = Path(__file__).parents[3] / "contrib/grafana/kata-runtime.json"
_SECONDS = 90.0
_PROMETHEUS_PORT = 9090
# What Grafana would put in place of its variables.
_VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$container": ".*"}


@pytest.fixture
def busy(sandbox: Sandbox, namespace: Namespace) -> Iterator[Sandbox]:
    """A container with a NIC that receives packets, a virtual service, and a command that failed."""
    namespace.tap("tap_watched", "172.16.0.1/16")
    added = sandbox.network("add-iface", nic("tap_watched", "eth-watched", "172.16.0.3/16"))
    assert added.returncode == 0, added.stderr
    failed = sandbox.network("add-iface", nic("nosuch", "eth-none", mac="02:42:20:6e:03:02"))
    assert failed.returncode == 1
    rules = "-A -t 172.16.0.3:80 -s rr\n-a -t 172.16.0.3:80 -r 172.16.0.1:8080 -m\n"
    assert sandbox.cli("kata-ipvs", "ipvsadm", "--restore", "-", sandbox.id, stdin=rules).returncode == 0
    yield sandbox
    sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", "-C", sandbox.id)
    sandbox.network("del-iface", {"name": "eth-watched"})


@contextmanager
def _running(argv: list[str], awaited: str) -> Iterator[str]:
    """A program that runs in the background; gives the line of its standard error that has ``awaited`` in it."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            yield _line(process.stderr.fileno(), awaited)
        finally:
            process.terminate()
            process.communicate(timeout=_SECONDS)
        assert process.returncode == 0


def _line(descriptor: int, awaited: str) -> str:
    said = b""
    end = time.monotonic() + _SECONDS
    while True:
        for line in said.decode().splitlines():
            if awaited in line:
                return line
        left = end - time.monotonic()
        assert left > 0, (awaited, said)
        if select.select([descriptor], [], [], left)[0]:
            part = os.read(descriptor, 65536)
            assert part, said
            said += part


def _query(namespace: Namespace, expression: str) -> list[Any]:
    done = namespace.run(
        "promtool", "query", "instant", "--format=json", f"http://localhost:{_PROMETHEUS_PORT}", expression
    )
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def _expressions() -> list[str]:
    found = [
        target["expr"] for panel in json.loads(_DASHBOARD.read_text())["panels"] for target in panel.get("targets", ())
    ]
    for name, value in _VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def test_dashboard(busy: Sandbox, namespace: Namespace, tmp_path: Path) -> None:
    """Prometheus scrapes the metrics, and each query of the dashboard is valid and returns data."""
    listening = r"metrics are at (127\.0\.0\.1:\d+)/metrics"
    with _running(busy.runtime.argv("metrics", "--listen", "0"), "metrics are at") as said:
        found = re.search(listening, said)
        assert found is not None
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: kata, static_configs: [{{targets: ['{found[1]}']}}]}}]\n"
        )
        argv = [
            *namespace.prefix, "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{_PROMETHEUS_PORT}",
        ]  # fmt: skip
        with _running(argv, "Server is ready to receive web requests"):
            _check_queries(busy, namespace)


def _check_queries(sandbox: Sandbox, namespace: Namespace) -> None:
    expressions = _expressions()
    assert len(expressions) == 23
    # On a busy host scrapes come late: packets are seen when one came before them, and another after.
    waiting = [*expressions, f'rate(kata_nic_receive_packets_total{{container="{sandbox.id}"}}[1m]) > 0']
    end = time.monotonic() + _SECONDS
    while waiting:
        assert time.monotonic() < end, waiting
        # Traffic to be seen; each round takes as long as the queries.
        namespace.run("ping", "-c", "2", "-i", "0.2", "-W", "20", "172.16.0.3")
        waiting = [expression for expression in waiting if not _query(namespace, expression)]
    values = {
        name: float(_query(namespace, f'{name}{{container="{sandbox.id}"}}')[0]["value"][1])
        for name in ("kata_nic_up", "kata_ipvs_services", "kata_ipvs_servers", "kata_container_answered")
    }
    assert set(values.values()) == {1.0}, values
    failures = _query(namespace, f'kata_operation_failures_total{{container="{sandbox.id}",operation="add-iface"}}')
    assert float(failures[0]["value"][1]) >= 1


def test_busy_container(sandbox: Sandbox) -> None:
    """While another command holds a container, metrics wait half a second at most, and say that it is busy."""
    with sandbox.session():
        began = time.monotonic()
        done = sandbox.cli("metrics")
        took = time.monotonic() - began
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for name, value in {"up": "1.0", "answered": "0.0", "busy": "1.0"}.items():
        assert f'kata_container_{name}{{container="{sandbox.id}"}} {value}' in lines
    assert took < 10


def test_textfile(sandbox: Sandbox, tmp_path: Path) -> None:
    """The file is replaced in one step by metrics that promtool accepts; other files are not touched."""
    path = tmp_path / "kata.prom"
    path.write_text("former")
    before = path.stat().st_ino
    done = sandbox.cli("metrics", "--textfile", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [each.name for each in tmp_path.iterdir()] == ["kata.prom"]
    assert path.stat().st_ino != before
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=path.read_bytes(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert f'kata_container_answered{{container="{sandbox.id}"}} 1.0' in path.read_text().splitlines()
    failed = sandbox.cli("metrics", "--textfile", str(tmp_path / "none" / "kata.prom"))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"kata-runtime: cannot write {tmp_path}/none/kata.prom: No such file or directory\n"
