"""Sandboxes that start from a template of a booted machine: like any other, and no twins."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Namespace, Runtime, Sandbox, booted, nic

from kata_runtime.sandbox.record import load_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_IDENTITY = "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; head -c 32 /dev/urandom | base64"
_FALLBACK = "kata-runtime: the sandbox is booted, since its template could not be loaded: "


def _with_templates(runtime: Runtime, config: Path, templates: Path) -> Runtime:
    """The program with another directory of templates, by a configuration to be written."""
    lines = [line for line in runtime.config.read_text().splitlines() if not line.startswith("template_path")]
    config.write_text("\n".join([*lines, f'template_path = "{templates}"', ""]))
    return Runtime(runtime.root, config)


@pytest.fixture(scope="module")
def first(
    runtime: Runtime, unique: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sandbox, Path]]:
    """A machine that became a template, and a directory of templates with that one only."""
    directory = tmp_path_factory.mktemp("first")
    own = _with_templates(runtime, directory / "configuration.toml", directory / "templates")
    try:
        with booted(own, unique("a")) as made:
            yield made, directory / "templates"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def siblings(first: tuple[Sandbox, Path], runtime: Runtime, tmp_path: Path) -> Runtime:
    """The program that starts from the template of the first machine."""
    return _with_templates(runtime, tmp_path / "configuration.toml", first[1])


@pytest.fixture
def copied_templates(first: tuple[Sandbox, Path], runtime: Runtime, tmp_path: Path) -> Iterator[tuple[Runtime, Path]]:
    """The program with a directory of templates of its own, in which there is one."""
    templates = tmp_path / "templates"
    shutil.copytree(first[1], templates)
    yield _with_templates(runtime, tmp_path / "configuration.toml", templates), templates
    shutil.rmtree(templates)


@pytest.fixture
def own_templates(runtime: Runtime, tmp_path: Path) -> Iterator[tuple[Runtime, Path]]:
    """The program with a directory of templates of its own, which does not exist yet."""
    templates = tmp_path / "templates"
    yield _with_templates(runtime, tmp_path / "configuration.toml", templates), templates
    shutil.rmtree(templates)


def _kept(templates: Path) -> list[str]:
    return sorted(path.name for path in templates.glob("*") if not path.name.startswith("."))


def _started_at(sandbox: Sandbox) -> float:
    """Seconds that the guest's kernel has been up."""
    return float(sandbox.guest("cat", "/proc/uptime").stdout.split()[0])


def test_siblings_differ(first: tuple[Sandbox, Path], siblings: Runtime, unique: Callable[[str], str]) -> None:
    """The machine that became a template and two that started from it share no ID, name or random byte."""
    made, templates = first
    (key,) = _kept(templates)
    with booted(siblings, unique("b")) as second, booted(siblings, unique("c")) as third:
        sandboxes = (made, second, third)
        seen = [sandbox.guest("sh", "-c", _IDENTITY).stdout.split() for sandbox in sandboxes]
        assert [names[2] for names in seen] == [sandbox.id[:12] for sandbox in sandboxes]
        for values in zip(*seen, strict=True):
            assert len(set(values)) == 3, values
        assert _kept(templates) == [key]
        clocks = [int(sandbox.guest("date", "+%s").stdout) for sandbox in sandboxes]
        assert all(abs(clock - time.time()) < 30 for clock in clocks), clocks


def test_secrets_of_the_network_differ(siblings: Runtime, unique: Callable[[str], str], namespace: Namespace) -> None:
    """Two siblings with the same addresses choose sequence numbers for the same connections by keys of their own."""
    siblings.namespace = namespace
    offsets = []
    for name in ("b", "c"):
        with booted(siblings, unique(name)) as sandbox:
            namespace.tap("tap0", "10.9.0.1/24")
            assert sandbox.network("add-iface", nic("tap0", "eth0", "10.9.0.3/24")).returncode == 0
            offsets.append(_sequence_offsets(sandbox, namespace))
            assert sandbox.network("del-iface", {"name": "eth0"}).stdout == "null\n"
            namespace.run("ip", "link", "delete", "tap0")
    # A common key would give the same offsets up to what the clocks are apart: a second is 15.6 million (RFC 6528).
    apart = [min((x - y) % 2**32, (y - x) % 2**32) for x, y in zip(*offsets, strict=True)]
    assert max(apart) > 600_000_000, offsets


_SNIFFER = """
import socket, struct, sys, time
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
heard.bind(("tap0", 0))
heard.settimeout(30)
print("ready", flush=True)
found = {}
while len(found) < 8:
    frame = heard.recv(2048)
    if frame[23] == 6 and frame[47] & 0x02 and frame[26:30] == bytes([10, 9, 0, 3]):
        port, sequence = struct.unpack_from("!HI", frame, 36)
        found.setdefault(port, (sequence - (time.time_ns() >> 6)) % 2**32)
print(*[found[port] for port in sorted(found)])
"""


def _sequence_offsets(sandbox: Sandbox, namespace: Namespace) -> list[int]:
    """Initial sequence numbers of connections to eight ports without their share of the clock."""
    sniffer = subprocess.Popen(
        [*namespace.prefix, "python3", "-c", _SNIFFER], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        for port in range(7001, 7009):
            sandbox.guest("busybox", "nc", "-p", "5000", "-w", "2", "10.9.0.1", str(port), stdin="")
        return [int(word) for word in sniffer.communicate(timeout=60)[0].split()]
    finally:
        sniffer.kill()
        sniffer.wait()


def test_a_sibling_does_all_that_a_booted_one_does(
    siblings: Runtime, unique: Callable[[str], str], namespace: Namespace
) -> None:
    """After a start from a template NICs come and go, virtual servers are kept, commands run, the guest powers off."""
    began = time.monotonic()
    with booted(siblings, unique("b")) as sandbox:
        # It went on where the other was: it is up longer than it exists.
        assert _started_at(sandbox) > 1.0
        sandbox.runtime.namespace = namespace
        namespace.tap("tap0", "10.0.0.1/24")
        assert sandbox.network("add-iface", nic("tap0", "eth0", "10.0.0.3/24")).stderr == ""
        assert namespace.attempt("ping", "-c", "1", "-W", "5", "10.0.0.3").returncode == 0
        rule = "-A -t 10.0.0.3:80 -s rr"
        assert sandbox.cli("kata-ipvs", "ipvsadm", "--parameters", rule, sandbox.id).stderr == ""
        assert json.loads(sandbox.network("del-iface", {"name": "eth0"}).stdout) is None
        assert sandbox.guest("sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
        assert sandbox.cli("kill", sandbox.id).stderr == ""
        assert json.loads(sandbox.cli("state", sandbox.id).stdout)["status"] == "stopped"
    assert time.monotonic() - began < 120


def test_a_damaged_template(copied_templates: tuple[Runtime, Path], unique: Callable[[str], str]) -> None:
    """A template that QEMU does not load is reported once, the sandbox is booted, and a new template is made."""
    runtime, templates = copied_templates
    (key,) = _kept(templates)
    devices = templates / key / "devices"
    whole = devices.read_bytes()
    devices.write_bytes(whole[: len(whole) // 2])
    # As if it had been so when it was verified: what is refused is the loading.
    (templates / key / "verified.json").unlink()
    description = json.loads((templates / key / "template.json").read_text())
    description["sha256"]["devices"] = _digest_of(devices)
    (templates / key / "template.json").write_text(json.dumps(description))
    name = unique("b")
    done = runtime.cli("run", "--detach", name)
    try:
        assert (done.returncode, done.stdout) == (0, f"{name}\n")
        assert [line for line in done.stderr.splitlines() if not line.startswith(_FALLBACK)] == []
        assert done.stderr.count("\n") == 1
        assert _kept(templates) == [key]
        assert devices.read_bytes() != whole[: len(whole) // 2]
    finally:
        runtime.cli("delete", "--force", name)


def _digest_of(path: Path) -> str:
    from kata_runtime.sandbox import template

    with path.open("rb") as file:
        return template._digest(file.fileno())


def test_many_at_once(own_templates: tuple[Runtime, Path], unique: Callable[[str], str]) -> None:
    """Of three that start at once one makes the template, and none fails or waits for it."""
    runtime, templates = own_templates
    names = [unique("p") for _ in range(3)]
    running = [
        subprocess.Popen(
            runtime.argv("run", "--detach", name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in names
    ]
    try:
        outcomes = [(*process.communicate(timeout=180), process.returncode) for process in running]
        assert outcomes == [(f"{name}\n", "", 0) for name in names]
        assert len(_kept(templates)) == 1
    finally:
        for name in names:
            runtime.cli("delete", "--force", name)


def test_switched_off(copied_templates: tuple[Runtime, Path], unique: Callable[[str], str]) -> None:
    """With template = "off" none is made, and image clean removes those that there are."""
    runtime, templates = copied_templates
    with booted(runtime, unique("a")) as sandbox:
        assert len(_kept(templates)) == 1
        assert load_record(str(sandbox.directory)).ready
    done = runtime.cli("image", "clean")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"kata-runtime: 1 template removed from {templates}\n"
    assert _kept(templates) == []
    runtime.config.write_text(runtime.config.read_text() + 'template = "off"\n')
    with booted(runtime, unique("b")):
        assert _kept(templates) == []
